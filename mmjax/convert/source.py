"""Where a checkpoint comes from: a folder, or a file in one."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.errors import ConversionError
from mmjax.convert.tensor_files import check_exists, read_tensors
from mmjax.paths import suggestion


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder or a file of weights; each file is read once, when it is asked for.

    Attributes:
      path: the folder or the file; ConversionError where there is none.
    """

    path: Path

    def __post_init__(self) -> None:
        check_exists(self.path)

    @property
    def folder(self) -> Path:
        """The folder itself, or the one that the file is in."""
        return self.path if self.path.is_dir() else self.path.parent

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """The content of `config.json`; nothing where there is none."""
        return read_json(self.folder / "config.json") if (self.folder / "config.json").is_file() else {}

    @functools.cached_property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """All tensors by name, see `read_tensors`."""
        return read_tensors(self.path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON of a file.

    Raises:
      ConversionError: the file is missing or is no JSON.
    """
    if not path.is_file():
        there = [file.name for file in path.parent.glob("*")]
        raise ConversionError(f"cannot read {path.parent}", [f"no {path.name}; {suggestion(path.name, there)}"])
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConversionError(f"cannot read {path.parent}", [f"{path.name} is no JSON: {error}"]) from None

"""Records from web-dataset shards: tar files whose members `<key>.jpg`, `<key>.txt`, ... are one record."""

import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bracex import expand
from wcmatch import glob

from mmjax.data.records import CorruptRecordError, Record, RecordSource
from mmjax.data.sources._columns import Columns, class_index
from mmjax.data.sources._tar import cached_scan

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


class WebDatasetSource(RecordSource):
    """Records of tar shards, read by offset from where they lie."""

    def __init__(self, shards: Sequence[Path], class_names: Sequence[str], index_folder: Path | None):
        self.location = str(shards[0]) if len(shards) == 1 else f"{shards[0]} to {shards[-1].name}"
        self.class_names = tuple(class_names)
        self._shards = list(shards)
        self._indices = [cached_scan(shard, index_folder) for shard in shards]
        self._ends = np.cumsum([len(index.keys) for index in self._indices])
        self._left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> Record:
        where = self.where(index)
        shard, position = self._place(index)
        members = {}
        try:
            with self._shards[shard].open("rb") as file:
                for extension, offset, size in self._indices[shard].members(position):
                    if extension not in self._left_out:
                        file.seek(offset)
                        members[extension] = file.read(size)
        except OSError as error:
            raise CorruptRecordError(where, str(error)) from error
        record = assemble(members, self.class_names, where=where)
        return {"id": str(self._indices[shard].keys[position]), **record}

    def where(self, index: int) -> str:
        shard, position = self._place(index)
        return f"{self._shards[shard]} key {self._indices[shard].keys[position]}"

    def without_images(self) -> "WebDatasetSource":
        """The same records; their pictures are passed over."""
        source = copy.copy(self)
        source._left_out = IMAGE_EXTENSIONS
        return source

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - (int(self._ends[shard - 1]) if shard else 0)


def assemble(members: dict[str, bytes], class_names: Sequence[str] = (), *, where: str) -> Record:
    """The record of the members with one key.

    A picture's extension gives `image`, `txt` the caption, `cls` the label. `json` gives fields by name, among
    them `caption` or `captions`, `label` and `id`, but no `image`; where both give one, `json` loses. Any other
    extension is a field of bytes.

    Args:
      members: contents by extension.
      class_names: the classes in order, where `cls` holds names.
      where: the place of the record, for the message.

    Raises:
      CorruptRecordError: a member is no text or no JSON object, or there are two pictures.

    >>> assemble({"txt": b"a dog", "cls": b"3", "wav": b"RIFF"}, where="shard.tar key 1")
    {'captions': ['a dog'], 'label': 3, 'wav': b'RIFF'}
    """
    record: Record = {}
    if "json" in members:
        row = _json_object(members["json"], where)
        row.pop("image", None)  # A path in a shard must not make the reader open a file outside of it.
        record = Columns(class_names=tuple(class_names)).record(row, where=where)
    for extension, content in members.items():
        if extension in IMAGE_EXTENSIONS:
            if "image" in record:
                raise CorruptRecordError(where, f"two pictures, among {', '.join(members)}")
            record["image"] = content
        elif extension == "txt":
            record["captions"] = [_text(content, extension, where)]
        elif extension == "cls":
            record["label"] = class_index(_text(content, extension, where), class_names, where=where)
        elif extension != "json":
            record[extension] = content
    return record


def find_shards(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The shards that a pattern names: braces as in `train-{000..127}.tar` in order, globs sorted.

    Raises:
      FileNotFoundError: a name of the pattern is no file, or a glob matches nothing.
    """
    patterns = [path] if isinstance(path, str | os.PathLike) else path
    shards, missing = [], []
    for name in (name for pattern in patterns for name in expand(os.fspath(pattern))):
        found = sorted(glob.glob(name, flags=glob.GLOBSTAR)) if glob.is_magic(name) else [name]
        files = [Path(file) for file in found if os.path.isfile(file)]
        shards += files
        missing += [] if files else [name]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(f"{len(missing)} shards not found: {shown} (looked from {Path.cwd()})")
    return shards


def build(
    *,
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    class_names: Sequence[str] = (),
    index_folder: str | os.PathLike[str] | None = None,
) -> WebDatasetSource:
    """The records of web-dataset shards, at random access.

    The headers of each shard are read once, at the start. Compressed shards have no random access.

    Args:
      path: a shard, a pattern such as `data/train-{000..127}.tar` or `data/*.tar`, or several of them.
      class_names: the classes in order, where `.cls` members hold names.
      index_folder: folder in which to keep what was read of the headers, for later runs; none by default.

    Returns:
      A random-access source; `id` is the key.

    Raises:
      FileNotFoundError: a shard is not there.
      ValueError: a shard is compressed, cut short or no tar.
    """
    return WebDatasetSource(find_shards(path), class_names, Path(index_folder) if index_folder else None)


def _text(content: bytes, extension: str, where: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise CorruptRecordError(where, f".{extension} is not UTF-8: {error}") from error


def _json_object(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise CorruptRecordError(where, f".json is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptRecordError(where, f".json holds {type(value).__name__}, expected an object")
    return value

"""The files of a workdir that a report reads; one that is not there is empty."""

import json
import pathlib
from typing import Any


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The objects in a JSON-lines file; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    complete = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in complete.splitlines()]

"""Records from a JSON-lines file: one object a line, pictures by path."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.data.records import CorruptRecordError
from mmjax.data.sources._columns import Columns, TableSource
from mmjax.data.sources._lines import LineIndex


class JsonLinesSource(TableSource):
    """The objects of a JSON-lines file, read by offset."""

    def __init__(self, path: Path, columns: Columns):
        self.location = str(path)
        self.class_names = columns.class_names
        self._lines = LineIndex(path)
        self._columns = columns

    def __len__(self) -> int:
        return len(self._lines)

    def read(self, index: int) -> dict[str, Any]:
        where = self.where(index)
        try:
            row = json.loads(self._lines[index].decode("utf-8-sig"))
        except ValueError as error:
            raise CorruptRecordError(where, f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise CorruptRecordError(where, f"expected a JSON object, found {type(row).__name__}")
        default_id = f"{Path(self.location).stem}:{self._lines.numbers[index]}"
        return {"id": default_id, **self._columns.record(row, where=where)}

    def where(self, index: int) -> str:
        return f"{self.location} line {self._lines.numbers[index]}"


def build(
    *,
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    class_names: Sequence[str] = (),
) -> JsonLinesSource:
    """The objects of a JSON-lines file, as in `{"image": "cats/1.jpg", "captions": ["a cat", "a pet"]}`.

    Args:
      path: the file, UTF-8.
      root: folder that the pictures' paths start from and must lie in; the file's own folder by default.
      image_column: key of the picture's path; `image` by default, if there.
      caption_column: key of a caption or a list of captions; `captions`, else `caption` by default, if there.
      label_column: key of the class, an integer or a name; `label` by default, if there.
      id_column: key of the record's name; `id` by default, if there, else the line number is the name.
      class_names: the classes in order, where labels are names.

    Returns:
      A random-access source. All other keys stay in the record.

    Raises:
      FileNotFoundError: there is no such file.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent if root is None else root)
    return JsonLinesSource(
        path, Columns(image_column, caption_column, label_column, id_column, tuple(class_names), folder)
    )

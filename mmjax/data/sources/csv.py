"""Records from a CSV file with a header: one row a record, pictures by path."""

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mmjax.data.records import CorruptRecordError, Record
from mmjax.data.sources._columns import Columns, TableSource
from mmjax.data.sources._lines import LineIndex
from mmjax.paths import suggestion

_JSON_LIST = re.compile(r'\s*\[\s*(\]|")')


class CsvSource(TableSource):
    """The rows of a CSV file, read by offset."""

    def __init__(self, path: Path, columns: Columns, delimiter: str):
        self.location = str(path)
        self.class_names = columns.class_names
        self._lines = LineIndex(path, quoted=True)
        self._delimiter = delimiter
        self._columns = columns
        if not len(self._lines):
            raise ValueError(f"{path} is empty, expected a header line")
        self._header = self._cells(0)
        if len(set(self._header)) < len(self._header):
            raise ValueError(f"{path}: the header names a column twice: {', '.join(self._header)}")
        for column in columns[:4]:
            if column is not None and column not in self._header:
                raise ValueError(f"{path} has no column {column!r}; {suggestion(column, self._header)}")

    def __len__(self) -> int:
        return len(self._lines) - 1

    def read(self, index: int) -> Record:
        where = self.where(index)
        cells = self._cells(index + 1)
        if len(cells) != len(self._header):
            raise CorruptRecordError(where, f"{len(cells)} cells, the header has {len(self._header)}")
        record = self._columns.record(dict(zip(self._header, cells, strict=True)), where=where)
        if "captions" in record:
            record["captions"] = _captions(record["captions"][0], where)
        return {"id": f"{Path(self.location).stem}:{self._lines.numbers[index + 1]}", **record}

    def where(self, index: int) -> str:
        return f"{self.location} line {self._lines.numbers[index + 1]}"

    def _cells(self, line: int) -> list[str]:
        try:
            text = self._lines[line].decode("utf-8-sig")
            return next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except (ValueError, csv.Error) as error:
            where = f"{self.location} line {self._lines.numbers[line]}"
            raise CorruptRecordError(where, f"not CSV: {error}") from error


def _captions(cell: str, where: str) -> list[str]:
    if not _JSON_LIST.match(cell):
        return [cell]
    try:
        return json.loads(cell)
    except ValueError as error:
        raise CorruptRecordError(where, f"captions start like a JSON list, but are none: {error}") from error


def build(
    *,
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    class_names: Sequence[str] = (),
    delimiter: str = ",",
) -> CsvSource:
    r"""The rows of a CSV file with a header line (RFC 4180).

    Args:
      path: the file, UTF-8; a cell with the delimiter, a newline or a double quote in it is quoted.
      root: folder that the pictures' paths start from and must lie in; the file's own folder by default.
      image_column: column of the picture's path; `image` by default, if there.
      caption_column: column of the captions, one text or a JSON list of texts; `captions`, else `caption` by
        default, if there.
      label_column: column of the class, an integer or a name; `label` by default, if there.
      id_column: column of the record's name; `id` by default, if there, else the line number is the name.
      class_names: the classes in order, where labels are names.
      delimiter: between cells; `"\t"` for TSV.

    Returns:
      A random-access source. All other columns stay in the record, as text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a named column is not in the header, or a quote never closes.
    """
    path = Path(path)
    folder = os.path.abspath(path.parent if root is None else root)
    columns = Columns(image_column, caption_column, label_column, id_column, tuple(class_names), folder)
    return CsvSource(path, columns, delimiter)

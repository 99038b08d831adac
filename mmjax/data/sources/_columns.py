"""From a row of a table to a record: which column is which field, and where the pictures lie."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from mmjax.data.records import CorruptRecordError, Record, RecordSource
from mmjax.paths import suggestion

_DEFAULTS = {
    "image": ("image",),
    "captions": ("captions", "caption"),
    "label": ("label",),
    "id": ("id",),
}


class Columns(NamedTuple):
    """How to read the rows of a table.

    Attributes:
      image: column of the picture's path; None means `image`, if a row has it.
      captions: column of a caption or of a list of captions; None means `captions`, or else `caption`.
      label: column of the class; None means `label`, if a row has it.
      id: column of the record's name; None means `id`, if a row has it.
      class_names: the classes in order, where the column holds their names.
      root: folder that holds the pictures; none outside of it is read.
      images: whether a record has its picture.
    """

    image: str | None = None
    captions: str | None = None
    label: str | None = None
    id: str | None = None
    class_names: tuple[str, ...] = ()
    root: str = os.sep
    images: bool = True

    def record(self, row: Mapping[str, Any], *, where: str) -> Record:
        """The record of a row: its four fields by name, other columns as they are, nulls left out."""
        fields, used = {}, set()
        for field, defaults in _DEFAULTS.items():
            column = self._column(field, defaults, row, where)
            if column is not None:
                used.add(column)
                if row[column] is not None and (self.images or field != "image"):
                    fields[field] = row[column]
        if isinstance(fields.get("captions"), str):
            fields["captions"] = [fields["captions"]]
        if isinstance(fields.get("image"), str):
            fields["image"] = image_path(fields["image"], root=self.root, where=where)
        if isinstance(fields.get("label"), str):
            fields["label"] = class_index(fields["label"], self.class_names, where=where)
        if isinstance(fields.get("id"), int):
            fields["id"] = str(fields["id"])
        return {**{column: value for column, value in row.items() if column not in used}, **fields}

    def _column(self, field: str, defaults: Sequence[str], row: Mapping[str, Any], where: str) -> str | None:
        column = getattr(self, field)
        if column is None:
            return next((name for name in defaults if name in row), None)
        if column not in row:
            raise CorruptRecordError(where, f"no column {column!r}; {suggestion(column, row)}")
        return column


class TableSource(RecordSource):
    """A source of rows."""

    _columns: Columns

    def without_images(self) -> Self:
        """The same records; no picture is looked for."""
        source = copy.copy(self)
        source._columns = self._columns._replace(images=False)
        return source


def image_path(path: str, *, root: str, where: str) -> str:
    """The absolute path of a picture that a list names.

    Links are followed, but the name itself must not lead out of `root`: a list from elsewhere cannot read the
    rest of the disk. For a list of absolute paths the root is `/`.

    Args:
      path: absolute, or relative to `root`.
      root: an absolute path.
      where: the place of the record, for the message.

    Raises:
      CorruptRecordError: the path leads out of the root, or to no file.
    """
    full = os.path.normpath(os.path.join(root, path))
    if os.path.commonpath([root, full]) != root:
        raise CorruptRecordError(where, f"image {path!r} lies outside of {root}; set root to a folder that holds it")
    if not os.path.isfile(full):
        raise CorruptRecordError(where, f"image {full} not found")
    return full


def class_index(name: str, names: Sequence[str], *, where: str) -> int:
    """The position of a class among `names`, or the integer that it spells where there are no names.

    >>> class_index("dog", ["cat", "dog"], where="train.csv line 2")
    1
    """
    if name in names:
        return names.index(name)
    if not names and name.strip().isdecimal():
        return int(name)
    known = suggestion(name, names) if names else "expected an integer; for names of classes set class_names"
    raise CorruptRecordError(where, f"label is {name!r}; {known}")

"""The contract between data and everything that reads it: a source is a random-access sequence of records.

A record is a dict. These fields have a meaning; at least one of `image` and `captions` is there, any may be
missing otherwise, and further fields are carried along untouched:

| field      | value                                                                                 |
|------------|---------------------------------------------------------------------------------------|
| `image`    | uint8 array `[H, W, C]` with C of 1, 3 or 4; or an encoded file as bytes; or its path  |
| `captions` | list of one or more strings, none blank                                               |
| `label`    | class, int of at least 0                                                              |
| `id`       | stable name of the record, str                                                        |

A record that cannot be read or breaks the contract raises `CorruptRecordError`, which names the file and the
reason; whoever reads the source decides whether to skip, count or stop. Pictures are not decoded here.
"""

import abc
import operator
from collections.abc import Mapping
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

Record: TypeAlias = dict[str, Any]


class CorruptRecordError(ValueError):
    """One record is unreadable.

    Attributes:
      where: the file, and the line, key or position in it.
      reason: what is wrong, and the fix where there is one.

    >>> str(CorruptRecordError("train.jsonl line 7", "captions is an empty list"))
    'train.jsonl line 7: captions is an empty list'
    """

    def __init__(self, where: str, reason: str):
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class RecordSource(abc.ABC):
    """A random-access sequence of valid records; the base of all file sources.

    A source pickles (a worker of a pipeline gets a copy) and reads a record in constant time. A subclass has
    `location`, `__len__`, `read` and `where`.

    Attributes:
      location: the file or folder that it reads.
      class_names: name of each class, in order of `label`, empty where they are not known.
      synthetic: whether a program made up the data.
    """

    location: str
    class_names: tuple[str, ...] = ()
    synthetic: bool = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of records, readable or not."""

    @abc.abstractmethod
    def read(self, index: int) -> Mapping[str, Any]:
        """The record at `index`, not yet validated."""

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """The place of the record at `index`: file, and line, key or position."""

    def __getitem__(self, index: SupportsIndex) -> Record:
        position = operator.index(index)
        if not 0 <= position < len(self):
            raise IndexError(f"{self.location}: record {position} of {len(self)}")
        return validate_record(self.read(position), where=self.where(position))

    def __repr__(self) -> str:
        # Free of addresses: grain stores it with the iterator's state, to know the source again.
        return f"{type(self).__name__}({self.location!r}, records={len(self)})"


def is_synthetic(source: Any) -> bool:
    """Whether a program made up the data of any source, as far as the source says.

    >>> is_synthetic([{"captions": ["a dog"]}])
    False
    """
    return bool(getattr(source, "synthetic", False))


def without_images(source: Any) -> Any:
    """The source without its pictures, if it can spare itself the work (a method `without_images`), else the source.

    >>> without_images([{"captions": ["a dog"]}])
    [{'captions': ['a dog']}]
    """
    return source.without_images() if hasattr(source, "without_images") else source


def locate(source: Any, index: int) -> str:
    """The place of a record of any source, for messages.

    >>> locate([{"captions": ["a dog"]}], 0)
    'list record 0'
    """
    return source.where(index) if hasattr(source, "where") else f"{type(source).__name__} record {index}"


def validate_record(record: Mapping[str, Any], *, where: str) -> Record:
    """The record with plain Python types, or the reason why it breaks the contract.

    Args:
      record: fields by name.
      where: the place of the record, for the message.

    Returns:
      A dict of the same fields: `captions` as list, `label` as int.

    Raises:
      CorruptRecordError: a field has the wrong type or is empty, or there is neither image nor captions.

    >>> validate_record({"captions": ("a dog",), "label": np.int64(3)}, where="train.jsonl line 1")
    {'captions': ['a dog'], 'label': 3}
    """
    if not isinstance(record, Mapping):
        raise CorruptRecordError(where, f"a record is a mapping of fields, found {_shown(record)}")
    if "image" not in record and "captions" not in record:
        fields = ", ".join(map(str, record)) or "none"
        raise CorruptRecordError(where, f"neither image nor captions among its fields ({fields})")
    valid = dict(record)
    for field, check in _CHECKS.items():
        if field in valid:
            valid[field] = check(valid[field], where)
    return valid


def _check_image(image: Any, where: str) -> np.ndarray | bytes | str:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
            found = f"{image.dtype} array of shape {image.shape}"
            raise CorruptRecordError(where, f"image is a {found}, expected uint8 [H, W, C] with C of 1, 3 or 4")
        return image
    if not isinstance(image, bytes | str):
        raise CorruptRecordError(where, f"image is {_shown(image)}, expected an array, encoded bytes or a path")
    if not image:
        raise CorruptRecordError(where, f"image is an empty {type(image).__name__}")
    return image


def _check_captions(captions: Any, where: str) -> list[str]:
    if not isinstance(captions, list | tuple):
        raise CorruptRecordError(where, f"captions is {_shown(captions)}, expected a list of strings")
    if not captions:
        raise CorruptRecordError(where, "captions is an empty list")
    for position, caption in enumerate(captions):
        if not isinstance(caption, str) or not caption.strip():
            reason = f"caption {position} is {_shown(caption)}, expected a string that is not blank"
            raise CorruptRecordError(where, reason)
    return list(captions)


def _check_label(label: Any, where: str) -> int:
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or label < 0:
        raise CorruptRecordError(where, f"label is {_shown(label)}, expected an integer of at least 0")
    return int(label)


def _check_id(name: Any, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise CorruptRecordError(where, f"id is {_shown(name)}, expected a string that is not empty")
    return name


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


_CHECKS: Mapping[str, Any] = {
    "image": _check_image,
    "captions": _check_captions,
    "label": _check_label,
    "id": _check_id,
}

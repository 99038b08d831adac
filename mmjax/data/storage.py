"""The generic on-disk format: a folder of ArrayRecord shards and a `dataset.json` that describes them.

    emoji/dataset.json                           splits, counts, fields, licence, source, synthetic or not
    emoji/LICENSE                                the licence files of the data
    emoji/train-00000-of-00002.array_record      records of the split `train`, random access

One record is one msgpack map of its fields: text, numbers, lists, maps, bytes, and numpy arrays by extension.
Nothing is pickled: to read a stranger's folder runs no code. `mmjax.data.sources.arrayrecord` reads it.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgpack
import numpy as np

from mmjax.data.records import Record, validate_record

INFO_FILE = "dataset.json"
_FORMAT = "mmjax-dataset-1"
_ARRAY = 1  # msgpack extension: dtype, shape, bytes of a C-ordered array


class DatasetInfo(NamedTuple):
    """What `dataset.json` says of the data as a whole.

    Attributes:
      name: short name.
      licence: licence in one line.
      source: where the data comes from, with its version.
      synthetic: whether a program made up the data.
      class_names: name of each class, in order of `label`.
      notes: anything else worth keeping, plain JSON: numbers of what was left out and why, for instance.
    """

    name: str
    licence: str
    source: str
    synthetic: bool = False
    class_names: Sequence[str] = ()
    notes: Mapping[str, Any] = {}


class Split(NamedTuple):
    """A split as `dataset.json` has it: names of its shards, number of its records."""

    files: tuple[str, ...]
    count: int


def encode_record(record: Mapping[str, Any]) -> bytes:
    """A record as bytes.

    Raises:
      TypeError: a field holds something else than text, numbers, bytes, lists, maps and plain numpy arrays.

    >>> decode_record(encode_record({"captions": ["a dog"], "box": np.array([1, 2], np.int16)}))
    {'captions': ['a dog'], 'box': array([1, 2], dtype=int16)}
    """
    return cast(bytes, msgpack.packb(dict(record), default=_encode_other, use_bin_type=True))


def decode_record(data: bytes) -> Record:
    """The inverse of `encode_record`; tuples come back as lists, arrays read-only."""
    return msgpack.unpackb(data, ext_hook=_decode_extension, raw=False, strict_map_key=False)


def write_dataset(
    out: str | os.PathLike[str],
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    info: DatasetInfo,
    licence_files: Mapping[str, str],
    shard_size: int = 256 * 2**20,
) -> dict[str, Split]:
    """Writes records as a dataset folder: all of it, or nothing.

    Args:
      out: the folder to make; it must not exist.
      splits: records of each split, in order; iterated once.
      info: description of the data.
      licence_files: texts of the licences, by the names of the files to put beside the data.
      shard_size: size in bytes above which a shard is closed and the next begun.

    Returns:
      What was written of each split.

    Raises:
      FileExistsError: `out` exists.
      CorruptRecordError: a record breaks the contract.
      ValueError: a split has no record.
    """
    out = Path(out)
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        fields: dict[str, set[str]] = {}
        written = {name: _write_split(partial, name, records, shard_size, fields) for name, records in splits.items()}
        for name, text in licence_files.items():
            (partial / name).write_text(text, "utf-8")
        description = {
            "format": _FORMAT,
            **info._asdict(),
            "licence_files": list(licence_files),
            "splits": {name: split._asdict() for name, split in written.items()},
            "fields": {name: " or ".join(sorted(types)) for name, types in sorted(fields.items())},
        }
        (partial / INFO_FILE).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", "utf-8")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return written


def read_info(folder: str | os.PathLike[str]) -> tuple[DatasetInfo, dict[str, Split]]:
    """The description and the splits of a dataset folder.

    Raises:
      FileNotFoundError: the folder holds no `dataset.json`.
      ValueError: that file is not of this format.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; a dataset folder is what write_dataset or prepare_data wrote")
    try:
        description = json.loads(path.read_text("utf-8"))
        if description["format"] != _FORMAT:
            raise ValueError(f"format is {description['format']!r}, expected {_FORMAT!r}")
        info = DatasetInfo(**{field: description[field] for field in DatasetInfo._fields})
        splits = {name: Split(tuple(s["files"]), s["count"]) for name, s in description["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} describes no dataset: {error}") from error
    return info, splits


def refuse_existing(out: str | os.PathLike[str]) -> None:
    """Raises FileExistsError if `out` exists: before hours of work, not after them."""
    if os.path.lexists(out):
        raise FileExistsError(f"{os.fspath(out)} exists; remove it or choose another folder")


def _write_split(
    folder: Path,
    split: str,
    records: Iterable[Mapping[str, Any]],
    shard_size: int,
    fields: dict[str, set[str]],
) -> Split:
    from array_record.python.array_record_module import ArrayRecordWriter

    count, size, shards, writer = 0, 0, 0, None
    try:
        for record in records:
            record = validate_record(record, where=f"split {split!r}, record {count}")
            for field, value in record.items():
                fields.setdefault(field, set()).add(type(value).__name__)
            data = encode_record(record)
            if writer is None or size + len(data) > shard_size:
                if writer is not None:
                    writer.close()
                # One record a group: a random read decompresses nothing but its own record.
                writer = ArrayRecordWriter(str(folder / f"{split}-{shards}"), "group_size:1")
                size, shards = 0, shards + 1
            writer.write(data)
            count, size = count + 1, size + len(data)
    finally:
        if writer is not None:
            writer.close()
    if count == 0:
        raise ValueError(f"write_dataset: split {split!r} has no record")
    files = tuple(f"{split}-{shard:05d}-of-{shards:05d}.array_record" for shard in range(shards))
    for shard, file in enumerate(files):
        (folder / f"{split}-{shard}").rename(folder / file)
    return Split(files, count)


def _encode_other(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        header = (value.dtype.str, value.shape, value.tobytes())
        return msgpack.ExtType(_ARRAY, msgpack.packb(header, use_bin_type=True))
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    raise TypeError(f"a record cannot hold {type(value).__name__} {value!r}; use text, numbers, bytes or plain arrays")


def _decode_extension(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code}")
    dtype, shape, content = msgpack.unpackb(data, raw=False)
    return np.frombuffer(content, np.dtype(dtype)).reshape(shape)

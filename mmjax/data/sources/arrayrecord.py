"""Records from a dataset folder: ArrayRecord shards and their `dataset.json` (see `mmjax.data.storage`)."""

import os
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource

from mmjax.data import storage
from mmjax.data.records import CorruptRecordError, Record, RecordSource
from mmjax.paths import suggestion


class ArrayRecordSource(RecordSource):
    """One split of a dataset folder.

    Attributes:
      info: what `dataset.json` says.
    """

    def __init__(self, folder: Path, split: str):
        self.info, splits = storage.read_info(folder)
        if split not in splits:
            raise ValueError(f"{folder} has no split {split!r}; {suggestion(split, splits)}")
        paths = [folder / file for file in splits[split].files]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, which its dataset.json lists")
        try:
            self._records = ArrayRecordDataSource(paths)
        except RuntimeError as error:
            raise ValueError(f"{folder}: a shard of split {split!r} is damaged, copy it again: {error}") from error
        found, expected = len(self._records), splits[split].count
        if found != expected:
            message = f"{found} records in split {split!r}, expected {expected} by its dataset.json"
            raise ValueError(f"{folder}: {message}; the copy is incomplete")
        self.location = f"{folder} split {split!r}"
        self.class_names = tuple(self.info.class_names)
        self.synthetic = self.info.synthetic

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        try:
            return storage.decode_record(self._records[index])
        except Exception as error:  # Riegeli and msgpack have no error class in common.
            raise CorruptRecordError(self.where(index), f"undecodable: {error}") from error

    def where(self, index: int) -> str:
        return f"{self.location} record {index}"


def build(*, path: str | os.PathLike[str], split: str = "train") -> ArrayRecordSource:
    """The records of one split of a dataset folder.

    Args:
      path: folder that `write_dataset` or `experiments.prepare_data` wrote.
      split: name of the split, as in `dataset.json`.

    Returns:
      A random-access source; `info` holds the description of the data.

    Raises:
      FileNotFoundError: the folder, its `dataset.json` or a shard is not there.
      ValueError: there is no such split, or records are missing.
    """
    return ArrayRecordSource(Path(path), split)

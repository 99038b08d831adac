"""Examples to batches, in the main process and after the workers: nothing is lost to a worker's remainder."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mmjax.data.buckets import Pools, Row, bucket_length
from mmjax.data.examples import Chunk, Chunks, ExampleReader
from mmjax.data.image_spec import normalize
from mmjax.data.order import PADDING
from mmjax.data.workers import Closable, read_ahead

Batch = dict[str, np.ndarray]

_CHUNK = 64
_SHARE_FROM = 1000


class ArraySpec(NamedTuple):
    """Shape and dtype of an array of a batch."""

    shape: tuple[int, ...]
    dtype: np.dtype


class TooManyBadRecordsError(RuntimeError):
    """More records than allowed cannot be read."""


class Batcher:
    """The stream's batches, one after another, and the state between any two of them.

    A batch depends on the positions alone: chunks may begin anywhere and come from any number of workers.
    """

    def __init__(
        self,
        reader: ExampleReader,
        *,
        batch_size: int,
        stop: int,
        remainder: str,
        lengths: Sequence[int] = (0,),
        grouped: bool = False,
        max_bad_share: float,
        num_workers: int = 0,
        num_threads: int = 0,
    ):
        self._reader = reader
        self._stop = stop
        self._remainder = remainder
        self._lengths = lengths
        self._grouped = grouped
        self._max_bad_share = max_bad_share
        self._num_workers = num_workers
        self._num_threads = num_threads
        self._batch_size = batch_size
        self._pools = Pools(lengths if grouped else lengths[-1:], batch_size=batch_size)
        self._ready: collections.deque[list[Row]] = collections.deque()
        self._position = 0
        self._seen = self._bad = self._bad_in_all = 0
        self._warned: set[int] = set()
        self._last_error = "before this run was resumed"
        self._chunks: Closable | None = None
        self._rows: Iterator[tuple[Row, str | None]] | None = None

    def __iter__(self) -> "Batcher":
        return self

    def __next__(self) -> Batch:
        while not self._ready:
            if self._position < self._stop:
                self._advance()
            elif rest := self._pools.rows():
                self._pools.clear()
                self._ready.append(rest)
            else:
                raise StopIteration
        return self._batch(self._ready.popleft())

    def element_spec(self) -> dict[str, ArraySpec]:
        """Shape and dtype of each array of a full batch, texts at their full length."""
        empty = self._finish(self._reader.read(range(0)).fields, self._lengths[-1])
        return {name: ArraySpec((self._batch_size, *array.shape[1:]), array.dtype) for name, array in empty.items()}

    def get_state(self) -> dict[str, Any]:
        """Positions, as JSON holds them: the next one to read, and those read and not yielded."""
        return {
            "position": self._position,
            "ready": [[row.position for row in rows] for rows in self._ready],
            "waiting": [row.position for row in self._pools.rows()],
            "seen": self._seen,
            "bad": self._bad,
            "bad_in_all": self._bad_in_all,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; the examples that waited are read again."""
        self.close()
        self._position = state["position"]
        self._seen, self._bad, self._bad_in_all = state["seen"], state["bad"], state["bad_in_all"]
        self._ready = collections.deque(self._reread(positions) for positions in state["ready"])
        self._pools.clear()
        for row in self._reread(state["waiting"]):
            self._pools.add(row)

    def close(self) -> None:
        """Ends the workers."""
        if self._chunks is not None:
            self._chunks.close()
        self._chunks = self._rows = None

    def _advance(self) -> None:
        """Takes in one row of the stream."""
        if self._rows is None:
            self._rows = self._read_on()
        row, error = next(self._rows)
        self._position += 1
        self._seen += int(row.fields["index"] != PADDING)
        if error is not None:
            self._count_bad(int(row.fields["index"]), error)
        if (error is None or self._remainder == "pad") and (batch := self._pools.add(row)):
            self._ready.append(batch)
        if self._reader.order.ends_epoch(row.position):
            self._end_epoch()

    def _read_on(self) -> Iterator[tuple[Row, str | None]]:
        start = self._position
        source = Chunks(self._reader, start, self._stop, _CHUNK)
        self._chunks = read_ahead(source, num_workers=self._num_workers, num_threads=self._num_threads)
        for number, chunk in enumerate(self._chunks):
            first = start + number * _CHUNK
            yield from self._split(chunk, range(first, first + len(chunk.fields["index"])))

    def _split(self, chunk: Chunk, positions: Sequence[int]) -> Iterator[tuple[Row, str | None]]:
        errors = {row: f"{where}: {reason}" for row, where, reason in chunk.errors}
        lengths = chunk.fields.get("length", np.zeros(len(positions), np.int32))
        for number, position in enumerate(positions):
            fields = {name: values[number] for name, values in chunk.fields.items()}
            if self._grouped:
                # A row may wait for long, and a view would keep its whole chunk.
                fields = {name: value.copy() for name, value in fields.items()}
            yield Row(position, int(lengths[number]), fields), errors.get(number)

    def _reread(self, positions: Sequence[int]) -> list[Row]:
        rows = []
        for row, error in self._split(self._reader.read(positions), positions):
            if error is not None and self._remainder != "pad":
                raise TooManyBadRecordsError(f"a record that was read before cannot be read again: {error}")
            rows.append(row)
        return rows

    def _count_bad(self, index: int, error: str) -> None:
        self._bad += 1
        self._bad_in_all += 1
        if index not in self._warned:
            self._warned.add(index)
            logging.warning("skipped record %d: %s", index, error)
        self._last_error = error
        if self._seen >= _SHARE_FROM:
            self._check_share()

    def _check_share(self) -> None:
        if self._bad > self._max_bad_share * self._seen or self._bad == self._seen:
            raise TooManyBadRecordsError(
                f"{self._bad} of {self._seen} records of this epoch cannot be read, more than"
                f" max_bad_share={self._max_bad_share}; the log names each, the last is {self._last_error}"
            )

    def _end_epoch(self) -> None:
        if self._bad:
            self._check_share()
        self._seen = self._bad = 0
        self._ready.extend(self._pools.flush())
        if self._remainder == "drop":
            self._pools.clear()

    def _batch(self, rows: Sequence[Row]) -> Batch:
        fields = {name: np.stack([row.fields[name] for row in rows]) for name in rows[0].fields}
        return self._finish(fields, bucket_length(self._lengths, max(row.length for row in rows)))

    def _finish(self, fields: dict[str, np.ndarray], width: int) -> Batch:
        batch = dict(fields)
        if self._reader.augment:
            batch["image"] = normalize(batch["image"], self._reader.augment.spec)
        if self._reader.tokenizer:
            batch["text_mask"] = np.arange(width) < batch.pop("length")[:, None]
            batch["text"] = batch["text"][:, :width]
        if self._remainder != "pad":
            del batch["mask"]
        return batch

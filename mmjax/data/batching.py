"""Examples to batches, in the main process and after the workers: nothing is lost to a worker's remainder."""

import itertools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mmjax.data.buckets import bucket_length
from mmjax.data.examples import Chunks, ExampleReader
from mmjax.data.image_spec import normalize
from mmjax.data.order import PADDING
from mmjax.data.plan import Plan
from mmjax.data.workers import Asked, Closable, read_ahead

Batch = dict[str, np.ndarray]
Fields = dict[str, np.ndarray]  # of one example

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

    Args:
      reader: of the examples.
      batch_size: examples of this process in a batch.
      stop: positions of this process.
      start: position to begin at.
      remainder: see `train_batches`.
      lengths: that texts may be cut to, ascending.
      plan: decides on the examples and the length of each batch; None takes the stream's next ones, and the smallest
        length that holds them.
      max_bad_share, num_workers, num_threads: see `train_batches`.
    """

    def __init__(
        self,
        reader: ExampleReader,
        *,
        batch_size: int,
        stop: int,
        start: int = 0,
        remainder: str,
        lengths: Sequence[int] = (0,),
        plan: Plan | None = None,
        max_bad_share: float,
        num_workers: int = 0,
        num_threads: int = 0,
    ):
        self._reader = reader
        self._batch_size = batch_size
        self._stop = stop
        self._remainder = remainder
        self._lengths = lengths
        self._plan = plan
        self._plan_state: Mapping[str, Any] | None = plan.get_state() if plan else None
        self._max_bad_share = max_bad_share
        self._num_workers = num_workers
        self._num_threads = num_threads
        self._position = start
        self._seen = self._bad = self._bad_in_all = 0
        self._warned: set[int] = set()
        self._last_error = "before this run was resumed"
        self._chunks: Closable | None = None
        self._asked: Asked | None = None
        self._rows: Iterator[tuple[Fields, str | None]] | None = None

    def __iter__(self) -> "Batcher":
        return self

    def __next__(self) -> Batch:
        if self._plan is None:
            rows = self._following()
            longest = max((int(row.get("length", 0)) for row in rows), default=0)
            width = bucket_length(self._lengths, longest)
        else:
            rows, width = self._planned(self._plan)
        if not rows:
            raise StopIteration
        return self._finish({name: np.stack([row[name] for row in rows]) for name in rows[0]}, width)

    def element_spec(self) -> dict[str, ArraySpec]:
        """Shape and dtype of each array of a full batch, texts at their full length."""
        empty = self._finish(self._reader.read(range(0)).fields, self._lengths[-1])
        return {name: ArraySpec((self._batch_size, *array.shape[1:]), array.dtype) for name, array in empty.items()}

    def get_state(self) -> dict[str, Any]:
        """Positions and counts, as JSON holds them."""
        return {
            "position": self._position,
            "seen": self._seen,
            "bad": self._bad,
            "bad_in_all": self._bad_in_all,
            **({"plan": self._plan_state} if self._plan else {}),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self.close()
        self._position = state["position"]
        self._seen, self._bad, self._bad_in_all = state["seen"], state["bad"], state["bad_in_all"]
        if self._plan:
            batch = self._position // self._batch_size
            self._position = batch * self._batch_size
            self._plan.set_state(state.get("plan"), batch=batch)
            self._plan_state = self._plan.get_state()

    def close(self) -> None:
        """Ends the workers."""
        if self._chunks is not None:
            self._chunks.close()
        if self._asked is not None:
            self._asked.close()
        if self._plan:
            self._plan.close()
        self._chunks = self._asked = self._rows = None

    def _following(self) -> list[Fields]:
        """The next examples of the stream that can be read."""
        rows: list[Fields] = []
        while len(rows) < self._batch_size and self._position < self._stop:
            row, readable = self._read()
            if readable or self._remainder == "pad":
                rows.append(row)
            if self._reader.order.ends_epoch(self._position - 1):
                self._end_epoch()
                if self._remainder == "drop" and len(rows) < self._batch_size:
                    rows.clear()
        return rows

    def _planned(self, plan: Plan) -> tuple[list[Fields], int]:
        """The examples that are planned next; for one that cannot be read another one of the batch stands in."""
        if self._position >= self._stop:
            return [], 0
        number = self._position // self._batch_size
        planned = plan.batch(number)
        read = [self._read() for _ in planned.positions]
        rows = [row for row, readable in read if readable or self._remainder == "pad"]
        if not rows:
            raise TooManyBadRecordsError(f"none of {len(read)} records of a batch can be read, see the log")
        rows += itertools.islice(itertools.cycle(tuple(rows)), len(read) - len(rows))
        self._plan_state = planned.state
        if plan.ends_epoch(number):
            self._end_epoch()
        return rows, planned.width

    def _read(self) -> tuple[Fields, bool]:
        """The next example, and whether it could be read."""
        if self._rows is None:
            self._rows = self._read_on()
        row, error = next(self._rows)
        self._position += 1
        index = int(row["index"])
        self._seen += index != PADDING
        if error is not None:
            self._count_bad(index, error)
        return row, error is None

    def _read_on(self) -> Iterator[tuple[Fields, str | None]]:
        if self._plan is None:
            source: Any = Chunks(self._reader, self._position, self._stop)
        else:
            self._asked = Asked(self._plan.piece)
            weakref.finalize(self, self._asked.close)
            source = self._plan.pieces(self._reader, self._position // self._batch_size, self._asked)
        self._chunks = read_ahead(source, num_workers=self._num_workers, num_threads=self._num_threads)
        for chunk in self._chunks:
            errors = {row: f"{where}: {reason}" for row, where, reason in chunk.errors}
            for row in range(len(chunk.fields["index"])):
                yield {name: values[row] for name, values in chunk.fields.items()}, errors.get(row)

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

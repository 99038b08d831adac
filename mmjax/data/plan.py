"""Which examples make which batch, by the lengths of their texts: decided before anything else of them is read.

A decision needs the texts of the whole batch. Every process reads these for itself, text being cheap beside pictures,
and decides as the others do, without a word to them. Of a batch it then reads its own part, pictures and all.
"""

import collections
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.data.buckets import Pools, Row, bucket_length
from mmjax.data.examples import CHUNK, Chunk, Chunks, ExampleReader
from mmjax.data.workers import Closable, read_ahead


class Planned(NamedTuple):
    """A batch that is decided.

    Attributes:
      positions: of this process's examples, in the stream of all processes.
      width: tokens of the batch's texts, the same on all processes.
      state: of the plan after this batch, as JSON holds it.
    """

    positions: Sequence[int]
    width: int
    state: Mapping[str, Any]


class Plan:
    """The batches of a stream, decided as far as anyone has asked, by several threads at once if need be.

    Args:
      texts: reads the texts, and nothing else, of the stream of all processes.
      batch_size: examples in a batch, over all processes.
      shard: number of this process, and how many there are.
      stop: positions in the stream.
      lengths: that texts may be cut to, ascending.
      grouped: whether texts of like length are brought together; else batches follow the stream.
      num_workers, num_threads: that read texts.
    """

    def __init__(
        self,
        texts: ExampleReader,
        *,
        batch_size: int,
        shard: tuple[int, int],
        stop: int,
        lengths: Sequence[int],
        grouped: bool,
        num_workers: int = 0,
        num_threads: int = 0,
    ):
        self._texts = texts
        self._batch_size = batch_size
        self._process, self._processes = shard
        self._stop = stop
        self._lengths = lengths
        self._num_workers = num_workers
        self._num_threads = num_threads
        self._pools = Pools(lengths if grouped else lengths[-1:], batch_size=batch_size)
        self._pieces = math.ceil(batch_size / self._processes / CHUNK)
        self._lock = threading.Lock()
        self._chunks: Closable | None = None
        self.set_state(None, batch=0)

    def batch(self, number: int) -> Planned:
        """The batch of that number, from 0 at the beginning of the stream; those before it are forgotten."""
        with self._lock:
            for past in [known for known in self._planned if known < number]:
                del self._planned[past]
            return self._decided(number)

    def pieces(self, reader: ExampleReader, batch: int, ask: Callable[[int], Sequence[int]]) -> "Pieces":
        """This process's part of all batches from one on, for workers; `ask` is `piece`, wherever it is called."""
        last = math.ceil(self._stop / self._batch_size)
        return Pieces(reader, ask, batch * self._pieces, last * self._pieces)

    def piece(self, index: int) -> Sequence[int]:
        """The positions of the `index`-th chunk of the stream that this process reads."""
        number, piece = divmod(index, self._pieces)
        with self._lock:
            return self._decided(number).positions[piece * CHUNK : (piece + 1) * CHUNK]

    def ends_epoch(self, number: int) -> bool:
        """Whether with this batch as many examples are through as an epoch, or another one, has."""
        epoch = self._texts.order.epoch_length
        return (number + 1) * self._batch_size // epoch > number * self._batch_size // epoch

    def get_state(self) -> dict[str, Any]:
        """Positions and lengths of what is read and not in a batch, as JSON holds them."""
        return {
            "position": self._position,
            "ready": [_columns(rows) for rows in self._ready],
            "waiting": _columns(self._pools.rows()),
        }

    def set_state(self, state: Mapping[str, Any] | None, *, batch: int) -> None:
        """Goes on with the batch of that number; where the state is None, at its place in the stream."""
        self.close()
        state = state or {"position": batch * self._batch_size, "ready": [], "waiting": [[], []]}
        self._position = state["position"]
        self._ready = collections.deque(_rows(columns) for columns in state["ready"])
        self._pools.clear()
        for row in _rows(state["waiting"]):
            self._pools.add(row)
        self._planned: dict[int, Planned] = {}
        self._next = batch

    def close(self) -> None:
        """Ends the workers that read texts."""
        with self._lock:
            if self._chunks is not None:
                self._chunks.close()
            self._chunks = None

    def _decided(self, number: int) -> Planned:
        while self._next <= number:
            while not self._ready:
                self._advance()
            rows = self._ready.popleft()
            width = bucket_length(self._lengths, max(row.length for row in rows))
            own = [row.position for row in rows[self._process :: self._processes]]
            self._planned[self._next] = Planned(own, width, self.get_state())
            self._next += 1
        return self._planned[number]

    def _advance(self) -> None:
        """Takes in one row of the stream."""
        if self._chunks is None:
            self._read = self._read_on()
        row = Row(self._position, next(self._read))
        self._position += 1
        if batch := self._pools.add(row):
            self._ready.append(batch)
        if self._texts.order.ends_epoch(row.position):
            self._ready.extend(self._pools.flush())
        if self._position == self._stop and (rest := self._pools.rows()):
            self._pools.clear()
            self._ready.append(rest)

    def _read_on(self) -> Iterator[int]:
        source = Chunks(self._texts, self._position, self._stop)
        self._chunks = read_ahead(source, num_workers=self._num_workers, num_threads=self._num_threads)
        for chunk in self._chunks:
            yield from chunk.fields["length"].tolist()


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What one process reads of a plan, cut into chunks: the random-access source that grain's workers share."""

    reader: ExampleReader
    ask: Callable[[int], Sequence[int]]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Chunk:
        return self.reader.read(self.ask(self.start + index))


def _columns(rows: Sequence[Row]) -> list[list[int]]:
    return [[row.position for row in rows], [row.length for row in rows]]


def _rows(columns: Sequence[Sequence[int]]) -> list[Row]:
    return [Row(*row) for row in zip(*columns, strict=True)]

"""Length buckets: texts cut to the few lengths that a program is compiled for, examples of like length together."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """An example that has no batch yet.

    Attributes:
      position: in the stream.
      length: tokens of its text.
    """

    position: int
    length: int


class Pools:
    """Rows waiting for a batch: one pool a bucket, so that a batch pays for no longer text than it has.

    A pool becomes a batch when it is full, hence each holds less than a batch. At the end of an epoch what is
    left is batched over the pools, longest first; the shortest wait for the next epoch.

    >>> pools = Pools((4, 8), batch_size=2)
    >>> rows = [Row(position, length) for position, length in enumerate([3, 7, 2, 8])]
    >>> [[row.position for row in batch] for row in rows if (batch := pools.add(row))]
    [[0, 2], [1, 3]]
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int):
        self._lengths = lengths
        self._batch_size = batch_size
        self._pools: list[list[Row]] = [[] for _ in lengths]

    def add(self, row: Row) -> list[Row] | None:
        """Takes a row in; the batch that it completes, if any."""
        number = bisect.bisect_left(self._lengths, row.length)
        pool = self._pools[number]
        pool.append(row)
        if len(pool) < self._batch_size:
            return None
        self._pools[number] = []
        return pool

    def rows(self) -> list[Row]:
        """The rows that wait, shortest bucket first."""
        return [row for pool in self._pools for row in pool]

    def clear(self) -> None:
        """Forgets the rows that wait."""
        self._pools = [[] for _ in self._lengths]

    def flush(self) -> list[list[Row]]:
        """Full batches of the rows that wait, longest first; fewer than a batch stay."""
        rows = [row for pool in reversed(self._pools) for row in pool]
        full = len(rows) // self._batch_size * self._batch_size
        self.clear()
        for row in rows[full:]:
            self.add(row)
        return [rows[start : start + self._batch_size] for start in range(0, full, self._batch_size)]


def bucket_length(lengths: Sequence[int], longest: int) -> int:
    """The smallest of the ascending `lengths` that holds `longest`.

    >>> bucket_length((16, 24, 32), 17)
    24
    """
    return lengths[bisect.bisect_left(lengths, longest)]


def check_buckets(buckets: Sequence[int] | None, *, context_length: int) -> tuple[int, ...]:
    """The bucket lengths, ascending up to `context_length`; that alone where there are none."""
    if not buckets:
        return (context_length,)
    if list(buckets) != sorted(set(buckets)) or buckets[0] < 1 or buckets[-1] != context_length:
        raise ValueError(
            f"buckets are {tuple(buckets)}, expected ascending lengths that end at context_length, {context_length}"
        )
    return tuple(buckets)

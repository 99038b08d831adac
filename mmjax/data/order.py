"""Which record stands at which position of the stream of examples, as a pure function."""

import math
from typing import NamedTuple

from mmjax.data.randomness import epoch_seed
from mmjax.data.workers import permuted

REMAINDERS = ("keep", "drop", "pad")
PADDING = -1


class Order(NamedTuple):
    """Positions of one process's stream to (epoch, index of the record).

    The epochs follow each other, each a permutation of the records; process `i` of `n` takes the places `i`,
    `i + n`, ... of the whole, so that the batches of all processes together are the batches of one process.

    Attributes:
      records: number of records in the source.
      seed: of the permutations.
      shuffle: False for the source's own order.
      epoch_length: places of an epoch, over all processes: `records`, less those that "drop" leaves out, or
        with those that "pad" adds.
      process: number of this process.
      processes: how many there are.

    >>> order = Order(records=3, seed=0, shuffle=False, epoch_length=4, process=1, processes=2)
    >>> [order.locate(position) for position in range(3)]
    [(0, 1), (0, -1), (1, 1)]
    """

    records: int
    seed: int
    shuffle: bool
    epoch_length: int
    process: int = 0
    processes: int = 1

    def locate(self, position: int) -> tuple[int, int]:
        """Epoch and record of a position; `PADDING` for a place that "pad" has added."""
        epoch, place = divmod(position * self.processes + self.process, self.epoch_length)
        if place >= self.records:
            return epoch, PADDING
        if not self.shuffle:
            return epoch, place
        return epoch, permuted(place, self.records, seed=epoch_seed(self.seed, epoch))

    def ends_epoch(self, position: int) -> bool:
        """Whether this process's next position belongs to the next epoch."""
        place = position * self.processes + self.process
        return (place + self.processes) // self.epoch_length > place // self.epoch_length

    def positions(self, epochs: int | None) -> int:
        """How many positions the stream has; endless is 2**60."""
        if epochs is None:
            return 2**60
        return len(range(self.process, epochs * self.epoch_length, self.processes))


def make_order(
    records: int, *, batch_size: int, seed: int, shuffle: bool, remainder: str, shard: tuple[int, int]
) -> Order:
    """The order for batches of `batch_size` over all processes.

    Args:
      records: number of records.
      batch_size: examples in a batch, over all processes.
      seed: of the permutations.
      shuffle: whether each epoch has its own permutation.
      remainder: what happens to the last, short batch of an epoch: "keep" fills it from the next epoch,
        "drop" leaves it out, "pad" fills it with examples whose `mask` is False.
      shard: number of this process, and how many there are.

    Raises:
      ValueError: the batch cannot be shared by the processes, or no batch can be made; the message gives the
        fix.
    """
    process, processes = shard
    if not 0 <= process < processes:
        raise ValueError(f"shard is {shard}, expected (process, processes) with 0 <= process < processes")
    if batch_size < 1 or batch_size % processes:
        near = sorted({max(processes, batch_size // processes * processes), -(-batch_size // processes) * processes})
        fix = " or ".join(str(size) for size in near if size > 0)
        raise ValueError(f"batch_size is {batch_size}, expected a multiple of the {processes} processes, e.g. {fix}")
    if remainder not in REMAINDERS:
        raise ValueError(f"remainder is {remainder!r}, expected one of {', '.join(map(repr, REMAINDERS))}")
    if records < 1:
        raise ValueError("the source has no records")
    rounded = {
        "keep": records,
        "drop": records // batch_size * batch_size,
        "pad": math.ceil(records / batch_size) * batch_size,
    }
    if not rounded[remainder]:
        raise ValueError(
            f"batch_size is {batch_size} and the source has {records} records: 'drop' leaves no batch;"
            f" take a batch_size of at most {records} or remainder='keep'"
        )
    return Order(records, seed, shuffle, rounded[remainder], process, processes)

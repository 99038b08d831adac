"""The one file that knows grain: threads and processes that read, and permutations that need no memory."""

from collections.abc import Iterator
from typing import Any, Protocol

import grain
from absl import flags
from grain.experimental import DatasetOptions, WithOptionsIterDataset, index_shuffle


class Closable(Iterator[Any], Protocol):
    """An iterator whose threads and processes end with `close`."""

    def close(self) -> None:
        """Ends them."""


def read_ahead(source: Any, *, num_workers: int, num_threads: int) -> Closable:
    """The items of a random-access source in order, read by threads, or by processes that each have threads.

    Args:
      source: `len(source)`, `source[index]`; with processes it has to pickle.
      num_workers: processes; 0 reads in this one.
      num_threads: threads in each process; 0 reads when an item is asked for.
    """
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    stream = grain.MapDataset.source(source).to_iter_dataset(options)
    if num_workers:
        _allow_workers_without_flags()
        # Pictures go through shared memory; for small arrays a pipe is faster.
        stream = WithOptionsIterDataset(stream, DatasetOptions(min_shm_size=2**16))
        stream = stream.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers, per_worker_buffer_size=2))
    return iter(stream)


def permuted(index: int, length: int, *, seed: int) -> int:
    """The place of `index` in a permutation of `range(length)`, without making the permutation.

    >>> sorted(permuted(index, 5, seed=3) for index in range(5))
    [0, 1, 2, 3, 4]
    """
    return index_shuffle(index, max_index=length - 1, seed=seed, rounds=4)


def _allow_workers_without_flags() -> None:
    # grain reads this flag of its own when it starts a worker, which fails where absl has parsed none, as in
    # a notebook; present means that its default may be read.
    name = "grain_enable_multiprocess_worker_profiling"
    if not flags.FLAGS.is_parsed() and name in flags.FLAGS:
        flags.FLAGS[name].present = 1

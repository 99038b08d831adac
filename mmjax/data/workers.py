"""The one file that knows grain: threads and processes that read, and permutations that need no memory."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection, Listener
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


class Asked:
    """A function of this process that its workers can call: a copy of it in another process asks here.

    Calls come in threads of this process, one a copy. What the function raises is raised where it was called.

    >>> ask = Asked(len)
    >>> ask([1, 2])
    2
    >>> ask.close()
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._listener: Listener | None = None
        self._closed = threading.Event()

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._listener is None:
            # A socket in a folder that nobody else may enter.
            self._listener = Listener()
            threading.Thread(target=_accept, args=(self._listener, self._function, self._closed), daemon=True).start()
        return _Asker, (self._listener.address,)

    def close(self) -> None:
        """Takes no further copies."""
        self._closed.set()
        if self._listener is not None:
            # The thread that waits for copies wakes for one more, and ends.
            Client(self._listener.address).close()
            self._listener = None


class _Asker:
    """The copy of an `Asked` in another process."""

    def __init__(self, address: Any):
        self._address = address
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        with self._lock:
            if self._connection is None:
                self._connection = Client(self._address)
            self._connection.send(args)
            raised, value = self._connection.recv()
        if raised:
            raise value
        return value


def _accept(listener: Listener, function: Callable[..., Any], closed: threading.Event) -> None:
    with listener:
        while True:
            connection = listener.accept()
            if closed.is_set():
                return
            threading.Thread(target=_answer, args=(connection, function), daemon=True).start()


def _answer(connection: Connection, function: Callable[..., Any]) -> None:
    with connection, contextlib.suppress(EOFError, OSError):
        while True:
            args = connection.recv()
            try:
                answer = False, function(*args)
            except Exception as error:
                answer = True, error
            connection.send(answer)


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

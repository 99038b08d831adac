"""The iterator that a training loop holds: it reads ahead, and its state is that of the batch last yielded."""

import contextlib
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax.data.batching import Batch, Batcher


class BatchIterator(Iterator[Batch]):
    """Batches, read ahead by a thread; a context manager that ends its threads and processes.

    Attributes:
      element_spec: shape and dtype of each array of a full batch; texts at their full length.
    """

    def __init__(self, batcher: Batcher, *, prefetch: int, stream: Mapping[str, Any]):
        self.element_spec = batcher.element_spec()
        self._batcher = batcher
        self._prefetch = prefetch
        self._stream = dict(stream)
        self._state = batcher.get_state()
        self._closed = False
        self._thread: threading.Thread | None = None

    def __next__(self) -> Batch:
        if self._closed:
            raise ValueError("the iterator over batches is closed")
        if not self._prefetch:
            item = _read(self._batcher)
        else:
            if self._thread is None:
                self._start()
            item = self._ready.get()
        if isinstance(item, BaseException):
            self._end()
            raise item
        batch, self._state = item
        return batch

    @property
    def bad_records(self) -> int:
        """How many times a record was skipped, up to the batch last yielded."""
        return self._state["bad_in_all"]

    def get_state(self) -> dict[str, Any]:
        """What JSON can hold and `set_state` of a fresh iterator over the same stream takes."""
        return {"stream": dict(self._stream), **self._state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on after the batch at which `get_state` was called.

        Raises:
          ValueError: the state is of another stream; the message tells the difference.
        """
        theirs = state["stream"]
        differences = [f"{k} {theirs.get(k)!r} -> {v!r}" for k, v in self._stream.items() if theirs.get(k) != v]
        if differences:
            raise ValueError(f"the state is of another stream of examples (state -> here): {', '.join(differences)}")
        self._end()
        self._batcher.set_state(state)
        self._state = self._batcher.get_state()

    def close(self) -> None:
        """Ends threads and processes; the iterator is of no use afterwards, but its state is."""
        self._closed = True
        self._end()
        self._batcher.close()

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> None:
        self._ready: queue.Queue[Any] = queue.Queue(self._prefetch)
        stop = threading.Event()
        # The thread knows the queue and not the iterator, so that an iterator that is dropped unclosed ends
        # it too.
        self._release = weakref.finalize(self, _release, self._ready, stop)
        self._thread = threading.Thread(
            target=_fill, args=(self._batcher, self._ready, stop), daemon=True, name="mmjax-batches"
        )
        self._thread.start()

    def _end(self) -> None:
        if self._thread is not None:
            self._release()
            self._thread.join()
            self._thread = None


def _read(batcher: Batcher) -> Any:
    """A batch with the state after it, or what was raised, the end of the stream included."""
    try:
        return next(batcher), batcher.get_state()
    except BaseException as error:
        return error


def _fill(batcher: Batcher, ready: "queue.Queue[Any]", stop: threading.Event) -> None:
    while not stop.is_set():
        item = _read(batcher)
        ready.put(item)
        if isinstance(item, BaseException):
            return


def _release(ready: "queue.Queue[Any]", stop: threading.Event) -> None:
    stop.set()
    # A thread that waits for room gets it, and then sees that it shall stop.
    with contextlib.suppress(queue.Empty):
        while True:
            ready.get_nowait()

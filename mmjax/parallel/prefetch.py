"""Batches on their way to the devices while the step before them runs."""

import collections
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from mmjax.parallel.mesh import put_batch


class DeviceBatches(Iterator[dict[str, jax.Array]]):
    """See `prefetch_to_device`."""

    def __init__(self, batches: Any, mesh: Mesh, *, size: int):
        if size < 1:
            raise ValueError(f"prefetch_to_device: size is {size}, expected 1 or more batches")
        self._batches, self._mesh, self._size = batches, mesh, size
        self._ready: collections.deque[tuple[dict[str, jax.Array], Any]] = collections.deque()
        self._state = batches.get_state()

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._ready) < self._size:
            try:
                batch = next(self._batches)
            except StopIteration:
                break
            self._ready.append((put_batch(batch, self._mesh), self._batches.get_state()))
        if not self._ready:
            raise StopIteration
        batch, self._state = self._ready.popleft()
        return batch

    def get_state(self) -> Any:
        """The state of `batches` after the batch last yielded: what is on the devices beyond it will be read again."""
        return self._state


def prefetch_to_device(batches: Any, mesh: Mesh, *, size: int = 2) -> DeviceBatches:
    """The batches of `batches` split over the mesh, those to come already being copied.

    Copies to an accelerator are asynchronous: that of the next batch goes on while the step on this one runs.

    Args:
      batches: iterator of numpy batches, this process's part, with `get_state`.
      mesh: from `make_mesh`.
      size: batches on the devices, the one in use included; 1 copies each when it is asked for.

    Raises:
      ValueError: `size` is below 1.
    """
    return DeviceBatches(batches, mesh, size=size)

"""The device mesh of a run, and the two placements of the data-parallel step: batches split, state replicated."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.config import ConfigError

DATA_AXIS = "data"


def make_mesh(*, data: int = -1) -> Mesh:
    """A mesh over all devices of all hosts.

    Args:
      data: devices along the batch; -1 takes all.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices.

    >>> make_mesh().axis_names
    ('data',)
    """
    devices = jax.devices()
    data = len(devices) if data == -1 else data
    if data != len(devices):
        raise ConfigError(f"mesh.data is {data}, but there are {len(devices)} devices; set it to {len(devices)} or -1")
    return Mesh(np.asarray(devices).reshape(data), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is the global batch."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch of which `batch` is this host's part, split over the mesh's data axis.

    Args:
      batch: numpy arrays with one first axis, this host's examples.
      mesh: from `make_mesh`.

    Raises:
      ConfigError: the global batch does not divide over the devices.
    """
    sharding = batch_sharding(mesh)
    size = len(next(iter(batch.values()))) * jax.process_count()
    if size % mesh.shape[DATA_AXIS]:
        raise ConfigError(
            f"a batch of {size} does not divide over {mesh.shape[DATA_AXIS]} devices; choose a multiple of "
            f"{math.lcm(mesh.shape[DATA_AXIS], jax.process_count())}"
        )
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

"""The device mesh of a run, and the placing of batches on it.

Three axes: `data` splits the batch, `fsdp` splits the batch and the state, `tensor` splits the layers.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.config import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


def make_mesh(*, data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all devices of all processes; neighbours along `tensor` are nearest, then along `fsdp`.

    Args:
      data: devices along which the batch is split and the state is repeated.
      fsdp: devices along which both the batch and the state are split.
      tensor: devices that share each example, every one with a part of the heads and hidden units.

      One size may be -1, which is then all devices that the others leave.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices, or `tensor` reaches over processes.

    >>> dict(make_mesh().shape) == {"data": len(jax.devices()), "fsdp": 1, "tensor": 1}
    True
    """
    return mesh_of(jax.devices(), data=data, fsdp=fsdp, tensor=tensor)


def local_mesh() -> Mesh:
    """A mesh over the devices of this process alone, split by examples: for work that processes share out beforehand.

    >>> local_mesh().size == len(jax.local_devices())
    True
    """
    return mesh_of(jax.local_devices())


def mesh_of(devices: Sequence[Any], *, data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """`make_mesh` over some devices: those of one process, or such as are not here (see `absent_devices`).

    >>> mesh_of(jax.devices()[:1]).size
    1
    """
    sizes = _complete({"data": data, "fsdp": fsdp, "tensor": tensor}, len(devices))
    mesh = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
    of_process = max(collections.Counter(device.process_index for device in devices).values())
    for neighbours in mesh.devices.reshape(-1, mesh.shape["tensor"]):
        if len({device.process_index for device in neighbours}) > 1:
            raise ConfigError(
                f"mesh.tensor is {mesh.shape['tensor']}, but devices that share an example must belong to one process, "
                f"which reads it, and a process has {of_process}; choose a divisor of it, and split the state over "
                "more devices with mesh.fsdp"
            )
    return mesh


def simulate_devices(count: int) -> None:
    """Makes this process one of `count` CPU devices, before anything asks jax for devices.

    Raises:
      ConfigError: the devices are there already.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise ConfigError(f"simulate_devices: {error}") from error


def describe(mesh: Mesh) -> str:
    """The sizes of a mesh in one line.

    >>> describe(make_mesh()) == f"mesh: data {len(jax.devices())}, fsdp 1, tensor 1; cpu devices of 1 process"
    True
    """
    sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    processes = _processes(mesh)
    plural = "es" if processes > 1 else ""
    return f"mesh: {sizes}; {mesh.devices.flat[0].platform} devices of {processes} process{plural}"


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def on_mesh(tree: Any, mesh: Mesh) -> Any:
    """`tree` with every array that lies elsewhere, such as on one device, replicated over the mesh."""
    devices = set(mesh.devices.flat)

    def place(leaf: Any) -> jax.Array:
        there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices
        return leaf if there else jax.device_put(leaf, replicated(mesh))

    return jax.tree.map(place, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is the global batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_devices(mesh: Mesh) -> int:
    """Number of parts that a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch of which `batch` is this process's part, split over data and fsdp; processes in their order.

    Args:
      batch: numpy arrays with one first axis, this process's examples.
      mesh: from `make_mesh`.

    Raises:
      ConfigError: the global batch does not divide over the devices.
    """
    sharding = batch_sharding(mesh)
    _check_divides(len(next(iter(batch.values()))) * _processes(mesh), mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def batch_shapes(spec: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes in place of the arrays of `put_batch`, for one process.

    Args:
      spec: anything with `shape` and `dtype`, of the global batch.
      mesh: from `make_mesh`.

    Raises:
      ConfigError: the batch does not divide over the devices.
    """
    sharding = batch_sharding(mesh)
    _check_divides(next(iter(spec.values())).shape[0], mesh)
    return {
        name: jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype), sharding=sharding)
        for name, array in spec.items()
    }


def put_shared_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The batch that every process holds whole, split over data and fsdp.

    Args:
      batch: numpy arrays with one first axis, the same on all processes.
      mesh: from `make_mesh`.

    Raises:
      ConfigError: the batch does not divide over the devices.
    """
    sharding = batch_sharding(mesh)
    _check_divides(len(next(iter(batch.values()))), mesh)
    return {
        name: jax.make_array_from_callback(array.shape, sharding, lambda index, array=array: array[index])
        for name, array in batch.items()
    }


def _complete(sizes: Mapping[str, int], count: int) -> tuple[int, ...]:
    listing = ", ".join(f"{name} {size}" for name, size in sizes.items())
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise ConfigError(f"mesh.{name} is {size}, expected at least 1, or -1 for the rest of {count} devices")
    rest = [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(rest) > 1:
        raise ConfigError(f"mesh ({listing}): at most one size can be -1, the rest; set {' or '.join(rest)}")
    if rest and count % known:
        fixed = " x ".join(f"{name} {size}" for name, size in sizes.items() if size not in (1, -1))
        raise ConfigError(f"mesh ({listing}): {fixed} = {known} does not divide {count} devices; choose divisors of it")
    if not rest and known != count:
        fix = f"set mesh.data to {count * sizes['data'] // known} or -1" if not count * sizes["data"] % known else ""
        raise ConfigError(
            f"mesh ({listing}) has {known} devices, but there are {count}; "
            + (fix or f"choose sizes that multiply to {count}, or -1 for one of them")
        )
    return tuple(count // known if size == -1 else size for size in sizes.values())


def _processes(mesh: Mesh) -> int:
    return len({device.process_index for device in mesh.devices.flat})


def _check_divides(size: int, mesh: Mesh) -> None:
    if size % batch_devices(mesh):
        raise ConfigError(
            f"a batch of {size} does not divide over {batch_devices(mesh)} devices; choose a multiple of "
            f"{math.lcm(batch_devices(mesh), _processes(mesh))}"
        )

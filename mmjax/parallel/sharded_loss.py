"""Losses of a batch that is split over a mesh, called with global arrays."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mmjax.parallel.collectives import AxisName
from mmjax.parallel.mesh import BATCH_AXES


def sharded(
    loss: Callable[..., jax.Array], mesh: Mesh | None = None, *, axis_name: AxisName = BATCH_AXES
) -> Callable[..., jax.Array]:
    """The same loss, of which each device of the mesh computes its own rows: `loss` under `jax.shard_map`.

    Values and gradients are those of the loss on one device, to rounding. `jax.jit` alone splits a loss written as one
    product of matrices too, but not a loop over blocks: every device would run all of it.

    Args:
      loss: `(*arrays, axis_name, **settings) -> [B]`, such as `mmjax.losses.clip_loss`.
      mesh: from `make_mesh`; None is the mesh of `jax.set_mesh` where the result is called, and outside of any the loss
        runs as it is.
      axis_name: the axis of the mesh, or axes, that split the batch.

    Returns:
      A function with the arguments of `loss` but `axis_name`. Arrays are split along their first axis, those among the
      keyword arguments (ids, masks) too; scalars (scale, bias) are everywhere the same.

    Raises:
      ValueError: (when called) the rows do not divide over the devices.

    >>> from mmjax.losses import clip_loss
    >>> from mmjax.parallel import make_mesh
    >>> [f"{value:.3f}" for value in sharded(clip_loss, make_mesh())(jnp.eye(2), jnp.eye(2), scale=1.0)]
    ['0.313', '0.313']
    """
    axes = (axis_name,) if isinstance(axis_name, str) else axis_name

    def call(*arrays: Any, **settings: Any) -> jax.Array:
        where = jax.sharding.get_abstract_mesh() if mesh is None else mesh
        if where.empty:
            return loss(*arrays, **settings)
        traced = {name: value for name, value in settings.items() if isinstance(value, jax.Array | np.ndarray)}
        constants = {name: value for name, value in settings.items() if name not in traced}
        sizes = {axis: where.shape[axis] for axis in axes}
        devices = math.prod(sizes.values())
        for array in jax.tree.leaves((arrays, traced)):
            if jnp.ndim(array) and len(array) % devices:
                listing = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
                raise ValueError(
                    f"sharded {getattr(loss, '__name__', 'loss')}: {len(array)} rows do not divide over {devices} "
                    f"devices ({listing}); choose a batch that is a multiple of {devices}, or drop the remainder"
                )

        def of_own_rows(arrays: Any, traced: Any) -> jax.Array:
            return loss(*arrays, **traced, **constants, axis_name=axis_name)

        rows, same = PartitionSpec(axis_name), PartitionSpec()
        specs = jax.tree.map(lambda x: rows if jnp.ndim(x) else same, (arrays, traced))
        return jax.shard_map(of_own_rows, mesh=where, in_specs=specs, out_specs=rows)(arrays, traced)

    return call

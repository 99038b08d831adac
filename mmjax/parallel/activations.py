"""Keeping activations split by examples while parameters are split over the same devices."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.parallel.mesh import BATCH_AXES, batch_devices

F = TypeVar("F", bound=Callable[..., Any])


def by_examples(function: F, mesh: Mesh) -> F:
    """`function` with every module's output split over data and fsdp along its first axis, the examples.

    FSDP is this constraint: the compiler then fetches a layer's parameters where they are used, and sums their gradient
    into the parts. Without it the compiler is free to split hidden units over fsdp instead, and moves activations.
    Values are the same either way. A mesh without fsdp needs nothing, and gives `function` itself.

    Args:
      function: calls Linen modules on arrays whose first axis is the examples.
      mesh: from `make_mesh`.
    """
    if mesh.shape["fsdp"] == 1:
        return function

    def constrain(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.ndim < 2 or leaf.shape[0] % batch_devices(mesh):
            return leaf
        spec = PartitionSpec(BATCH_AXES, *[PartitionSpec.UNCONSTRAINED] * (leaf.ndim - 1))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        return jax.tree.map(constrain, call(*args, **kwargs))

    def constrained(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return function(*args, **kwargs)

    return cast(F, constrained)

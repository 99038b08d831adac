"""Adapters whose parameters take the place of leaves that the model has."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.ops import at_least_float32
from mmjax.paths import flatten, suggestion, unflatten
from mmjax.peft.adapter import Adapter, Apply, Params, base_of, cannot_merge, with_base


def overlay(name: str, select: Callable[[Params], Sequence[str]]) -> Adapter:
    """An adapter whose parameters take the place of leaves of the model, and start from their values.

    The model keeps its own values beside them, so that they can be compared, interpolated and restored. The adapter's
    are float32, and cast to the model's dtype where they are used.

    Args:
      name: of the method.
      select: the model's parameters -> paths of the leaves.
    """

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        flat = flatten(base_of(params))
        # A copy: the two trees may be donated together.
        return unflatten({path: jnp.copy(at_least_float32(flat[path])) for path in select(base_of(params))})

    def merge(params: Params, adapter_params: Params) -> dict[str, Any]:
        flat = flatten(base_of(params))
        for path, leaf in flatten(adapter_params).items():
            if path not in flat or flat[path].shape != leaf.shape:
                found = f"it is {flat[path].shape} there" if path in flat else suggestion(path, flat)
                raise ValueError(f"{name}: the adapter has {path!r} {leaf.shape}, which the model lacks: {found}")
            flat[path] = leaf.astype(flat[path].dtype)
        return with_base(params, unflatten(flat))

    def wrap(apply: Apply) -> Callable[..., Any]:
        return lambda params, adapter_params, *args, **kwargs: apply(merge(params, adapter_params), *args, **kwargs)

    return Adapter(init, wrap, merge, name, unmerge=cannot_merge(name, "merging has replaced the model's own values"))

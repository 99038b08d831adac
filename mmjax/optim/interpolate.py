"""Weight-space interpolation."""

from typing import Any

import jax
import jax.numpy as jnp


def interpolate_params(params: Any, anchor_params: Any, *, ratio: float | jax.Array) -> Any:
    """The point between two parameter trees, leaf by leaf.

    `ratio params + (1 - ratio) anchor_params`

    Args:
      params: tree of arrays, for instance fine-tuned.
      anchor_params: tree of the same structure, for instance the pretrained one.
      ratio: 1 gives `params`, 0 gives `anchor_params`.

    Returns:
      A tree with the structure and dtypes of `params`, computed in float32; leaves that are not floating are
      those of `params`.

    >>> interpolate_params({"w": jnp.array([2.0])}, {"w": jnp.array([4.0])}, ratio=0.25)["w"].tolist()
    [3.5]

    Reference: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, equation 1.
    """

    def between(param: jax.Array, anchor: jax.Array) -> jax.Array:
        dtype = jnp.asarray(param).dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            return param
        wide = jnp.promote_types(dtype, jnp.float32)
        return (ratio * jnp.asarray(param, wide) + (1.0 - ratio) * jnp.asarray(anchor, wide)).astype(dtype)

    return jax.tree.map(between, params, anchor_params)

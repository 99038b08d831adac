"""Vectors of unit length."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax.ops.precision import at_least_float32


def l2_normalize(x: ArrayLike, *, axis: int = -1, eps: float = 1e-12) -> jax.Array:
    """Divides by the Euclidean norm along one axis.

    `x / max(||x||, eps)`

    A vector of zeros has no direction: it stays zero and gets no gradient. (The formula's own gradient there,
    `1 / eps`, is finite in name only: one empty row would outweigh the rest of a batch.) The norm is taken in
    float32.

    Args:
      x: `[...]` any shape, real.
      axis: the axis along which lengths are measured.
      eps: smallest divisor.

    Returns:
      `[...]` the shape of `x`; its dtype too, integers become float32.

    >>> print(l2_normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])))
    [[0.6 0.8]
     [0.  0. ]]
    """
    x = jnp.asarray(x)
    wide = at_least_float32(x)
    square = jnp.sum(jnp.square(wide), axis=axis, keepdims=True)
    zero = square == 0
    norm = jnp.sqrt(jnp.where(zero, 1.0, square))
    unit = jnp.where(zero, 0.0, wide / jnp.maximum(norm, eps))
    return unit.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else wide.dtype)

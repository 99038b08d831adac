"""Vectors of unit length, and of zero mean and unit variance."""

import functools

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


@functools.partial(jax.checkpoint, static_argnums=3)
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * (jax.lax.rsqrt(variance + eps) * scale) + bias


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, eps: float = 1e-5) -> jax.Array:
    """Layer normalisation over the last axis.

    `(x - mean(x)) / sqrt(var(x) + eps) * scale + bias`, with the variance of the centred values: E[x^2] - E[x]^2 would
    cancel. Computed in float32. The backward pass starts from `x` and computes the rest again, which on CPU takes less
    time than writing it down: ViT-B/32 and its gradient need a tenth less.

    Args:
      x: `[..., D]` floating.
      scale: `[D]`.
      bias: `[D]`.
      eps: added to the variance.

    Returns:
      `[..., D]` float32, or float64 where an input is.

    >>> layer_norm(jnp.array([1.0, 3.0]), jnp.ones(2), jnp.array([0.0, 2.0]), eps=0.0).tolist()
    [-1.0, 3.0]

    Reference:
      Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4.
    """
    return _layer_norm(at_least_float32(x), at_least_float32(scale), at_least_float32(bias), eps)

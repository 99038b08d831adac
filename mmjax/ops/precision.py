"""The precision rule: norms, softmaxes and reductions run in float32 whatever comes in."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def at_least_float32(x: ArrayLike) -> jax.Array:
    """Raises integers and half precision to float32, leaves float32 and float64 alone.

    Args:
      x: `[...]` any shape, real.

    Returns:
      `[...]` the same numbers, float32 or float64.

    >>> at_least_float32(jnp.ones(2, jnp.bfloat16)).dtype
    dtype('float32')
    """
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

"""Exponential moving average of parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def ema_update(ema_params: Any, new_params: Any, *, decay: float | jax.Array) -> Any:
    """One step of the average.

    `decay ema_params + (1 - decay) new_params`

    Args:
      ema_params: tree of arrays (or one array): the average so far.
      new_params: tree of the same structure.
      decay: in [0, 1]; 1 keeps the average, 0 replaces it.

    Returns:
      A tree with the structure and dtypes of `ema_params`, computed in float32; leaves that are not floating
      (counters) are those of `new_params`. Keep the average in float32: bfloat16 rounds small changes away.

    >>> ema_update({"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}, decay=0.75)["w"].tolist()
    [1.5]

    Reference: Tarvainen and Valpola, "Mean teachers are better role models", 2017, equation 2.
    """

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        dtype = jnp.asarray(old).dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            return new
        wide = jnp.promote_types(dtype, jnp.float32)
        return (decay * jnp.asarray(old, wide) + (1.0 - decay) * jnp.asarray(new, wide)).astype(dtype)

    return jax.tree.map(average, ema_params, new_params)


def ema_warmup_decay(step: ArrayLike, *, max_decay: float = 0.99) -> jax.Array:
    """A decay that makes the average a plain mean at first, so that it forgets the initial parameters.

    `min(1 - 1 / (step + 1), max_decay)`

    Args:
      step: int, any shape, from 0; step 0 copies the parameters.
      max_decay: the decay that is reached after `1 / (1 - max_decay)` steps.

    Returns:
      Float32, the shape of `step`.

    >>> ema_warmup_decay(jnp.array([0, 1, 3, 1000]), max_decay=0.875).tolist()
    [0.0, 0.5, 0.75, 0.875]

    Reference: Hu et al., "Earth-Adapter", 2025; VisionXLab/Earth-Adapter at 49a8ff8.
    """
    step = jnp.asarray(step).astype(jnp.float32)
    return jnp.minimum(1.0 - 1.0 / (step + 1.0), max_decay)

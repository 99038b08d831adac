"""Leaves of the model that train, by pattern."""

from collections.abc import Sequence

from mmjax.paths import flatten, match
from mmjax.peft.adapter import Adapter
from mmjax.peft.overlay import overlay


def unfreeze(patterns: str | Sequence[str]) -> Adapter:
    """Leaves that the model has, as the adapter's own, see `overlay`.

    Args:
      patterns: globs over paths of parameters, such as `**/ln_*/{scale,bias}`.

    Returns:
      The adapter.

    >>> import jax, jax.numpy as jnp
    >>> params = {"fc1": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}}
    >>> unfreeze("**/bias").init(jax.random.key(0), None, params)
    {'fc1': {'bias': Array([0., 0.], dtype=float32)}}
    """
    globs = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return overlay("unfreeze", lambda base: sorted(match(flatten(base), globs).matched))

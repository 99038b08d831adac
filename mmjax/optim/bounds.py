"""Parameters kept within bounds."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.paths import flatten, match, unflatten


def clip_params(bounds: Mapping[str, tuple[float, float]]) -> optax.GradientTransformation:
    """Shortens updates so that the updated parameters lie within bounds, exactly; the last link of a chain.

    `update <- clip(params + update, low, high) - params`

    CLIP keeps `log_scale` in [0, ln 100] in this way, so that the multiplier of the logits stays in [1, 100].

    Args:
      bounds: pattern over parameter paths -> `(low, high)`; infinite ends are allowed. Where several patterns
        match a leaf, they apply in their order.

    Returns:
      A stateless optax transformation for nested dicts; `update` needs `params`.

    Raises:
      ValueError: `low` is above `high`, or a bound is not a number.
      NoMatchError: (by `init`) a pattern matches nothing.

    >>> optimizer = optax.chain(optax.sgd(1.0), clip_params({"log_scale": (0.0, 4.6)}))
    >>> params = {"log_scale": jnp.array(4.5)}
    >>> updates, _ = optimizer.update({"log_scale": jnp.array(-3.0)}, optimizer.init(params), params)
    >>> bool(optax.apply_updates(params, updates)["log_scale"] == 4.6)
    True

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
    section 2.5.
    """
    limits = {pattern: (float(low), float(high)) for pattern, (low, high) in bounds.items()}
    for pattern, (low, high) in limits.items():
        if not low <= high:
            raise ValueError(f"clip_params: {pattern!r} has bounds ({low}, {high}), expected low <= high")

    def init(params: Any) -> optax.EmptyState:
        match(list(flatten(params)), list(limits))
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("clip_params: update needs the parameters; pass them as its third argument")
        flat, values = flatten(updates), flatten(params)
        for pattern, found in match(list(flat), list(limits)).matches.items():
            for path in found:
                flat[path] = _clip(values[path], flat[path], *limits[pattern])
        return unflatten(flat), state

    return optax.GradientTransformation(init, update)


def _clip(value: jax.Array, update: jax.Array, low: float, high: float) -> jax.Array:
    target = value + update
    clipped = (jnp.clip(target, low, high) - value).astype(update.dtype)
    # The difference is rounded, so that the sum may lie outside by a unit in the last place: then step back.
    clipped = jnp.where(value + clipped > high, jnp.nextafter(clipped, -jnp.inf), clipped)
    clipped = jnp.where(value + clipped < low, jnp.nextafter(clipped, jnp.inf), clipped)
    return jnp.where((low <= target) & (target <= high), update, clipped)

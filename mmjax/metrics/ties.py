"""What retrieval does where scores do not decide: equal scores, and scores that are no numbers."""

import jax
import jax.numpy as jnp

TIES = ("best", "worst", "mean")


def nan_against_model(scores: jax.Array, positives: jax.Array) -> jax.Array:
    """Replaces NaN by the lowest finite score on a positive and by the highest on any other item.

    NaN compares as false with everything, so a model that broke down would otherwise find every positive in
    front.
    """
    limits = jnp.finfo(scores.dtype)
    return jnp.where(jnp.isnan(scores), jnp.where(positives, limits.min, limits.max), scores)


def tied_rank(above: jax.Array, level: jax.Array, *, ties: str) -> jax.Array:
    """Rank of an item with `above` items over it and `level` rivals of the same score, by one of `TIES`."""
    if ties == "mean":
        return above + 0.5 * level
    return above + level if ties == "worst" else above

"""Tokens left out at random, so that training costs less."""

import jax
import jax.numpy as jnp

from mmjax._checks import check_rank


def drop_tokens(rng: jax.Array, tokens: jax.Array, *, num_kept: int) -> tuple[jax.Array, jax.Array]:
    """A random choice of each example's tokens, in their order; every token is as likely, examples are independent.

    Args:
      rng: random key.
      tokens: `[B, T, D]`.
      num_kept: K, how many to keep, 1 to T.

    Returns:
      The kept tokens `[B, K, D]`, and their places `[B, K]` int32, ascending.

    Raises:
      ValueError: `tokens` has not three axes, or K is out of range.

    >>> kept, places = drop_tokens(jax.random.key(0), jnp.arange(12.0).reshape(2, 6, 1), num_kept=3)
    >>> kept.shape, bool(jnp.all(jnp.diff(places) > 0))
    ((2, 3, 1), True)

    Reference:
      Li et al., "Scaling Language-Image Pre-training via Masking" (FLIP), CVPR 2023, section 3.
    """
    check_rank("drop_tokens", rank=3, tokens=tokens)
    batch, length, _ = tokens.shape
    if not 1 <= num_kept <= length:
        raise ValueError(f"drop_tokens: num_kept is {num_kept}, expected 1 to {length} for tokens of {tokens.shape}")
    _, places = jax.lax.top_k(jax.random.uniform(rng, (batch, length)), num_kept)
    places = jnp.sort(places, axis=-1)
    return jnp.take_along_axis(tokens, places[:, :, None], axis=1), places

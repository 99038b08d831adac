"""One token of a text to stand for the whole of it."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_choice, check_integer, check_rank

TEXT_POOLS = ("argmax", "eos", "first", "last")


def pool_text(
    tokens: ArrayLike,
    token_ids: ArrayLike,
    *,
    pool: str = "argmax",
    eos_id: int | None = None,
) -> jax.Array:
    """The token at a position found from the ids.

    `value_b = tokens[b, p(token_ids_b)]`, where p is one of four rules: "argmax" is the first position of the
    largest id (vocabularies in CLIP's layout give end-of-text the largest), "eos" the first position of
    `eos_id` (0 in a row without one), "first" position 0, "last" position T-1, padding or not.

    Args:
      tokens: `[B, T, D]` token features.
      token_ids: `[B, T]` int, the ids that the features belong to.
      pool: "argmax", "eos", "first" or "last".
      eos_id: id of the end-of-text token, needed by "eos".

    Returns:
      `[B, D]` in the dtype of `tokens`.

    Raises:
      ValueError: `pool` is unknown, "eos" came without `eos_id`, or the shapes do not agree.
      TypeError: `token_ids` is not of integers.

    >>> tokens = jnp.arange(8.0).reshape(2, 4, 1)
    >>> print(pool_text(tokens, jnp.array([[5, 2, 9, 0], [5, 9, 0, 0]])))
    [[2.]
     [5.]]

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
      section 2.4; mlfoundations/open_clip at 89fb801, `text_global_pool`.
    """
    tokens, token_ids = jnp.asarray(tokens), jnp.asarray(token_ids)
    check_choice("pool_text", "pool", pool, TEXT_POOLS)
    check_rank("pool_text", rank=3, tokens=tokens)
    check_integer("pool_text", token_ids=token_ids)
    if token_ids.shape != tokens.shape[:2]:
        raise ValueError(
            f"pool_text: token_ids has shape {token_ids.shape}, expected {tokens.shape[:2]}, one id a token"
        )
    if pool == "first":
        return tokens[:, 0]
    if pool == "last":
        return tokens[:, -1]
    if pool == "eos":
        if eos_id is None:
            raise ValueError('pool_text: pool="eos" needs eos_id, found None; pass the end-of-text id of the tokenizer')
        token_ids = token_ids == eos_id
    position = jnp.argmax(token_ids, axis=1)
    return jnp.take_along_axis(tokens, position[:, None, None], axis=1)[:, 0]

"""Scaled dot-product attention in two halves, between which the probabilities can be read or replaced."""

import math

import jax
import jax.numpy as jnp

from mmjax._checks import check_rank


def attention_probabilities(query: jax.Array, key: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    """Attention probabilities `softmax(q k^T / sqrt(H))`, computed in float32.

    Heads stand before positions: on CPU, XLA multiplies contiguous matrices in two thirds of the time of strided ones.

    Args:
      query: `[B, N, Q, H]`, N heads of width H.
      key: `[B, N, K, H]`.
      mask: bool, broadcastable to `[B, N, Q, K]`, True = attend. A query that may attend to nothing gets zeros.

    Returns:
      `[B, N, Q, K]` float32.

    Raises:
      ValueError: `query` or `key` has not four axes.

    >>> q = k = jnp.zeros((1, 1, 2, 4))
    >>> attention_probabilities(q, k, mask=jnp.tril(jnp.ones((2, 2), bool)))[0, 0].tolist()
    [[1.0, 0.0], [0.5, 0.5]]

    Reference:
      Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1.
    """
    check_rank("attention_probabilities", rank=4, query=query, key=key)
    query = query * (1 / math.sqrt(query.shape[-1]))
    logits = jnp.einsum("bnqh,bnkh->bnqk", query, key, preferred_element_type=jnp.float32)
    if mask is None:
        return jax.nn.softmax(logits)
    # With a finite fill no NaN arises inside where a row is wholly masked; the second `where` makes that row zero.
    probabilities = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(logits.dtype).min))
    return jnp.where(mask, probabilities, 0.0)


def attend(probabilities: jax.Array, value: jax.Array) -> jax.Array:
    """Values averaged by attention probabilities, head by head.

    Args:
      probabilities: `[B, N, Q, K]`.
      value: `[B, N, K, H]`.

    Returns:
      `[B, N, Q, H]`, the dtype of `value`.

    >>> attend(jnp.full((1, 1, 1, 2), 0.5), jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)).item()
    2.0
    """
    return jnp.einsum("bnqk,bnkh->bnqh", probabilities.astype(value.dtype), value)

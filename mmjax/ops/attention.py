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


def fused_attention(query: jax.Array, key: jax.Array, value: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    """`attend(attention_probabilities(query, key, mask), value)` in one operation, `jax.nn.dot_product_attention`.

    Where `has_flash_attention`, the probabilities never exist in memory; elsewhere XLA computes them.

    Args:
      query: `[B, N, Q, H]`.
      key: `[B, N, K, H]`.
      value: `[B, N, K, H]`.
      mask: bool, broadcastable to `[B, N, Q, K]`, True = attend. A query that may attend to nothing gets zeros.

    Returns:
      `[B, N, Q, H]`, the dtype of `value`.

    Raises:
      ValueError: an array has not four axes.

    >>> x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    >>> fused_attention(0 * x, x, x, mask=jnp.tril(jnp.ones((2, 2), bool))).ravel().tolist()
    [0.0, 2.0]

    Reference:
      Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", NeurIPS 2022.
    """
    check_rank("fused_attention", rank=4, query=query, key=key, value=value)
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    attended = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        mask=mask,
        implementation="cudnn" if has_flash_attention(query, key, mask=mask) else "xla",
    ).swapaxes(1, 2)
    return attended if mask is None else jnp.where(jnp.any(mask, axis=-1, keepdims=True), attended, 0)


def has_flash_attention(query: jax.Array, key: jax.Array, *, mask: jax.Array | None = None) -> bool:
    """Whether the default platform has a flash attention kernel for these arrays.

    It is cuDNN's: CUDA, bfloat16 or float16, H a multiple of 8 up to 128, and with a mask even Q and K. TPUs have none
    behind `jax.nn.dot_product_attention`.

    Args:
      query: `[B, N, Q, H]`, or its shape and dtype.
      key: `[B, N, K, H]`, or its shape and dtype.
      mask: as for `fused_attention`.

    >>> x = jax.ShapeDtypeStruct((1, 1, 4, 64), jnp.float32)
    >>> has_flash_attention(x, x)
    False
    """
    *_, queries, width = query.shape
    return (
        jax.default_backend() == "gpu"
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and width % 8 == 0
        and width <= 128
        and (mask is None or queries % 2 == key.shape[-2] % 2 == 0)
    )

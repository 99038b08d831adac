"""Low-rank updates of kernels, `W + s A B`: LoRA, rsLoRA, DoRA, on arrays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax.ops import at_least_float32


def lora_scale(*, alpha: ArrayLike, rank: int, rslora: bool = False) -> Any:
    """The multiplier s of a low-rank update: `alpha / rank`, with rsLoRA `alpha / sqrt(rank)`.

    >>> lora_scale(alpha=16, rank=4), lora_scale(alpha=16, rank=4, rslora=True)
    (4.0, 8.0)
    """
    return alpha / (math.sqrt(rank) if rslora else rank)


def low_rank_branch(x: jax.Array, a: jax.Array, b: jax.Array, *, scale: ArrayLike) -> jax.Array:
    """`scale (x a) b`, in float32.

    Args:
      x: `[..., in]`.
      a: `[in, r]`.
      b: `[r, out]`.
      scale: see `lora_scale`.

    Returns:
      `[..., out]`, float32.
    """
    # As two matrices: XLA on CPU is slower on products of more axes.
    flat = at_least_float32(x).reshape(-1, x.shape[-1]) @ at_least_float32(a)
    return expand(flat, b, scale=scale).reshape(*x.shape[:-1], b.shape[-1])


def expand(hidden: jax.Array, b: jax.Array, *, scale: ArrayLike) -> jax.Array:
    """The second half of a branch, `scale hidden b`: `[..., r]` to `[..., out]`, float32."""
    return jnp.asarray(scale) * (at_least_float32(hidden) @ at_least_float32(b))


def merge_low_rank(
    kernel: jax.Array, a: jax.Array, b: jax.Array, *, scale: ArrayLike, magnitude: jax.Array | None = None
) -> jax.Array:
    """The kernel with the update in it: `V = kernel + scale a b`, with a magnitude `V magnitude / ||V||`.

    Dense kernels, those of several input or output axes, convolutions and embeddings are one case: all axes but the
    last of `a` count the inputs. Norms are taken over the inputs, one for each output.

    Args:
      kernel: `[..., *inputs, *outputs]`; leading axes are layers.
      a: `[..., *inputs, r]`, or flattened `[..., in, r]`.
      b: `[..., r, out]`.
      scale: see `lora_scale`.
      magnitude: `[..., out]`, DoRA's; None = LoRA.

    Returns:
      The shape of `kernel`, float32.
    """
    layers = b.shape[:-2]
    flat = at_least_float32(kernel).reshape(*layers, -1, b.shape[-1])
    flat = flat + scale * (at_least_float32(a).reshape(*layers, -1, b.shape[-2]) @ at_least_float32(b))
    if magnitude is not None:
        flat = flat * _rescaling(flat, magnitude)[..., None, :]
    return flat.reshape(kernel.shape)


def column_norms(kernel: jax.Array, out: int) -> jax.Array:
    """The norm of what each of `out` outputs reads of a kernel `[*inputs, *outputs]`: `[out]`, float32."""
    return jnp.linalg.norm(at_least_float32(kernel).reshape(-1, out), axis=0)


def dora_rescaling(
    kernel: jax.Array, a: jax.Array, b: jax.Array, magnitude: jax.Array, *, scale: ArrayLike
) -> jax.Array:
    """`magnitude / ||kernel + scale a b||` `[out]`, the norm without gradient: what DoRA multiplies outputs by."""
    return _rescaling(merge_low_rank(kernel, a, b, scale=scale).reshape(-1, b.shape[-1]), magnitude)


def _rescaling(flat: jax.Array, magnitude: jax.Array) -> jax.Array:
    norm = jax.lax.stop_gradient(jnp.linalg.norm(flat, axis=-2))
    return at_least_float32(magnitude) / jnp.where(norm == 0, 1.0, norm)


def lora_linear(
    x: jax.Array,
    kernel: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    alpha: ArrayLike,
    rank: int,
    rslora: bool = False,
    bias: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """A linear layer with a low-rank update.

    `value = x kernel + bias + s (x a) b`, `merged_kernel = kernel + s a b`, s by `lora_scale`

    Args:
      x: `[..., in]`.
      kernel: `[in, out]`.
      a: `[in, r]`, initially uniform in +-1/sqrt(in).
      b: `[r, out]`, initially zeros.
      alpha, rank, rslora: give s.
      bias: `[out]`.

    Returns:
      `value` `[..., out]` and `merged_kernel` `[in, out]`.

    >>> x, kernel = jnp.array([[1.0, 2.0]]), jnp.eye(2)
    >>> a, b = jnp.array([[1.0], [0.0]]), jnp.array([[0.0, 3.0]])
    >>> lora_linear(x, kernel, a, b, alpha=2, rank=1)["value"].tolist()
    [[1.0, 8.0]]

    Reference:
      Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, equation 3; Kalajdzievski, "A Rank
      Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023 (rsLoRA); huggingface/peft 0.21.2.
    """
    scale = lora_scale(alpha=alpha, rank=rank, rslora=rslora)
    value = _add(x @ kernel, bias) + low_rank_branch(x, a, b, scale=scale)
    return {"value": value, "merged_kernel": merge_low_rank(kernel, a, b, scale=scale)}


def dora_linear(
    x: jax.Array,
    kernel: jax.Array,
    a: jax.Array,
    b: jax.Array,
    magnitude: jax.Array,
    *,
    alpha: ArrayLike,
    rank: int,
    rslora: bool = False,
    bias: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """A linear layer whose kernel is learned as directions, by a low-rank update, and magnitudes.

    `V = kernel + s a b`, `value = (x V) magnitude / ||V||_columns + bias`; the norm has no gradient.

    Args:
      x, kernel, a, b, alpha, rank, rslora, bias: see `lora_linear`.
      magnitude: `[out]`, initially the norms of the kernel's columns.

    Returns:
      `value` `[..., out]` and `merged_kernel` `[in, out]`.

    >>> x, kernel, zero = jnp.array([[1.0, 1.0]]), jnp.array([[3.0], [4.0]]), jnp.zeros((1, 1))
    >>> dora_linear(x, kernel, jnp.ones((2, 1)), zero, jnp.array([10.0]), alpha=1, rank=1)["value"].tolist()
    [[14.0]]

    Reference:
      Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, equations 5 and 11; huggingface/peft 0.21.2.
    """
    scale = lora_scale(alpha=alpha, rank=rank, rslora=rslora)
    rescaling = dora_rescaling(kernel, a, b, magnitude, scale=scale)
    value = _add((x @ kernel + low_rank_branch(x, a, b, scale=scale)) * rescaling, bias)
    return {"value": value, "merged_kernel": merge_low_rank(kernel, a, b, scale=scale, magnitude=magnitude)}


def lora_conv(
    x: jax.Array,
    kernel: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    alpha: ArrayLike,
    rank: int,
    rslora: bool = False,
    stride: int | tuple[int, ...] = 1,
    bias: jax.Array | None = None,
    padding: Any = "VALID",
) -> dict[str, jax.Array]:
    """A convolution with a low-rank update: one to r channels, and a linear layer from there.

    `value = conv(x, kernel) + bias + s conv(x, a) b`, `merged_kernel[h, w] = kernel[h, w] + s a[h, w] b`

    Args:
      x: `[B, H, W, in]`.
      kernel: `[kh, kw, in, out]`.
      a: `[kh, kw, in, r]`, initially uniform in +-1/sqrt(kh kw in).
      b: `[r, out]`, initially zeros.
      alpha, rank, rslora: give s, see `lora_scale`.
      stride: one number, or one for each axis.
      bias: `[out]`.
      padding: of `jax.lax.conv_general_dilated`.

    Returns:
      `value` `[B, H', W', out]` and `merged_kernel`.

    >>> x, one = jnp.ones((1, 2, 2, 1)), jnp.ones((2, 2, 1, 1))
    >>> lora_conv(x, one, one, jnp.ones((1, 1)), alpha=3, rank=1)["value"].item()
    16.0

    Reference:
      Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; huggingface/peft 0.21.2,
      `lora.layer.Conv2d`.
    """
    strides = (stride,) * (kernel.ndim - 2) if isinstance(stride, int) else stride

    def convolve(kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    scale = lora_scale(alpha=alpha, rank=rank, rslora=rslora)
    value = _add(convolve(kernel), bias) + expand(convolve(a), b, scale=scale)
    return {"value": value, "merged_kernel": merge_low_rank(kernel, a, b, scale=scale)}


def lora_embedding(
    ids: jax.Array,
    embedding: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    alpha: ArrayLike,
    rank: int,
    rslora: bool = False,
) -> jax.Array:
    """A table of embeddings with a low-rank update, `embedding[ids] + s a[ids] b`.

    Args:
      ids: `[...]` integers.
      embedding: `[V, D]`.
      a: `[V, r]`, initially zeros.
      b: `[r, D]`, initially standard normal.
      alpha, rank, rslora: give s, see `lora_scale`.

    Returns:
      `[..., D]`.

    >>> table, a, b = jnp.zeros((3, 2)), jnp.array([[0.0], [1.0], [0.0]]), jnp.array([[1.0, 2.0]])
    >>> lora_embedding(jnp.array([1, 2]), table, a, b, alpha=1, rank=1).tolist()
    [[1.0, 2.0], [0.0, 0.0]]

    Reference:
      Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; huggingface/peft 0.21.2,
      `lora.layer.Embedding`.
    """
    scale = lora_scale(alpha=alpha, rank=rank, rslora=rslora)
    return embedding[ids] + expand(a[ids], b, scale=scale)


def _add(value: jax.Array, bias: jax.Array | None) -> jax.Array:
    return value if bias is None else value + bias

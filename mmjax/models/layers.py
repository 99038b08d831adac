"""Flax layers as the towers use them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmjax.ops.patches import patchify


def _flat_dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, **settings: Any) -> jax.Array:
    """`jax.lax.dot_general` of `[..., in]` and `[in, out]` as one product of two matrices."""
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **settings)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _patch_convolution(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Any, *, precision: Any, **layout: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated` where windows neither overlap nor leave gaps: one product of two matrices."""
    batch, height, width, _ = images.shape
    patches = patchify(images, patch_size=strides[0])
    tokens = jnp.matmul(patches, kernel.reshape(-1, kernel.shape[-1]), precision=precision)
    return tokens.reshape(batch, height // strides[0], width // strides[1], kernel.shape[-1])


class Dense(nn.Dense):
    """`flax.linen.Dense` with the leading axes flattened: on CPU a block and its gradient take a fifth less time."""

    dot_general: Any = _flat_dot_general


class LayerNorm(nn.LayerNorm):
    """`flax.linen.LayerNorm` with PyTorch's epsilon, and the variance from centred values (E[x^2] - E[x]^2 cancels)."""

    epsilon: float = 1e-5
    use_fast_variance: bool = False


class PatchEmbed(nn.Conv):
    """A convolution over square patches, kernel = stride = `kernel_size`: `[B, H, W, C]` -> `[B, H/p, W/p, features]`.

    The parameters are a convolution's, `kernel` `[p, p, C, features]`; the product takes half the time of XLA's on CPU.
    """

    conv_general_dilated_cls: Any = lambda: _patch_convolution

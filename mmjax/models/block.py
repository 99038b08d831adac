"""Pre-norm Transformer blocks."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax.models.attention import Attention
from mmjax.models.layers import LayerNorm
from mmjax.models.mlp import Mlp


class Block(nn.Module):
    """Pre-norm block: `x += attn(ln_1(x)); x += mlp(ln_2(x))`.

    Parameters `ln_1`, `attn/{query,key,value,out}`, `ln_2`, `mlp/{fc1,fc2}`; with layer scale also
    `gamma_1`, `gamma_2` `[D]`, which multiply the two branches.

    Attributes:
      num_heads, attention: see `Attention`.
      mlp_ratio: hidden width of the MLP over D.
      act: activation of the MLP, see `Mlp`.
      layer_scale: initial value of the gammas; None = no gammas.
      dropout_rate: of both branches, before they are added.
      out_scale: multiplier of the initial standard deviation of `attn/out` and the last MLP layer; (2L)^-1/2 in CLIP.
      ln_eps: of the layer norms.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    layer_scale: float | None = None
    dropout_rate: float = 0.0
    out_scale: float = 1.0
    ln_eps: float = 1e-5
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, deterministic: bool = True) -> jax.Array:
        """`x` `[B, T, D]`, `mask` bool broadcastable to `[B, N, T, T]` -> `[B, T, D]`."""
        width = x.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = functools.partial(LayerNorm, epsilon=self.ln_eps, **dtypes)
        dropout = nn.Dropout(self.dropout_rate, deterministic=deterministic)

        def add(x: jax.Array, branch: jax.Array, gamma_name: str) -> jax.Array:
            if self.layer_scale is not None:
                gamma = self.param(gamma_name, nn.initializers.constant(self.layer_scale), (width,), self.param_dtype)
                branch = branch * gamma.astype(branch.dtype)
            return x + dropout(branch)

        settings = {"out_scale": self.out_scale, "attention": self.attention}
        attn = Attention(self.num_heads, name="attn", **settings, **dtypes)
        mlp = Mlp(round(self.mlp_ratio * width), self.act, out_scale=self.out_scale, name="mlp", **dtypes)
        x = add(x, attn(norm(name="ln_1")(x), mask=mask), "gamma_1")
        return add(x, mlp(norm(name="ln_2")(x)), "gamma_2")


class CrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention block of CoCa's decoder: `x += attn(ln_1(x), ln_context(context)); x += mlp(ln_2(x))`.

    Parameters: those of `Block` and `ln_context`.

    Attributes:
      num_heads, attention: see `Attention`.
      mlp_ratio: hidden width of the MLP over D.
      act: activation of the MLP, see `Mlp`.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022, section 3.2;
      mlfoundations/open_clip at 89fb801.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, context: jax.Array) -> jax.Array:
        """`tokens` `[B, T, D]`, `context` `[B, S, C]` -> `[B, T, D]`."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = functools.partial(LayerNorm, **dtypes)
        attn = Attention(self.num_heads, attention=self.attention, name="attn", **dtypes)
        mlp = Mlp(round(self.mlp_ratio * tokens.shape[-1]), self.act, name="mlp", **dtypes)
        x = tokens + attn(norm(name="ln_1")(tokens), norm(name="ln_context")(context))
        return x + mlp(norm(name="ln_2")(x))

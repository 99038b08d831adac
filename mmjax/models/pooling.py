"""Pooling of tokens by learned queries."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax.models.attention import Attention
from mmjax.models.layers import LayerNorm
from mmjax.models.mlp import Mlp


class AttentionalPooler(nn.Module):
    """Learned queries attend to tokens, `attn(ln_q(queries), ln_k(tokens))`: no residual, no MLP.

    Parameters `queries` `[num_queries, features]`, `ln_q`, `ln_k`, `attn/{query,key,value,out}`.

    Attributes:
      num_queries: number of tokens that come out.
      features: their width.
      num_heads, attention: see `Attention`.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022, section 3.2;
      mlfoundations/open_clip at 89fb801.
    """

    num_queries: int
    features: int
    num_heads: int = 8
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """`[B, T, C]` -> `[B, num_queries, features]`."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = functools.partial(LayerNorm, **dtypes)
        shape = (self.num_queries, self.features)
        queries = self.param("queries", nn.initializers.normal(1.0), shape, self.param_dtype)
        queries = jnp.broadcast_to(norm(name="ln_q")(queries), (tokens.shape[0], *shape))
        return Attention(self.num_heads, attention=self.attention, name="attn", **dtypes)(
            queries, norm(name="ln_k")(tokens)
        )


class MapHead(nn.Module):
    """SigLIP's multi-head attention pooling: one learned probe attends, `x = attn(probe, tokens); x + mlp(ln(x))`.

    Parameters `probe` `[D]`, `attn/{query,key,value,out}`, `ln`, `mlp/{fc1,fc2}`.

    Attributes:
      num_heads, mlp_ratio, act, ln_eps, attention, dtype, param_dtype: see `Block`.

    Reference:
      Zhai et al., "Scaling Vision Transformers", CVPR 2022, section 3.2.
    """

    num_heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    ln_eps: float = 1e-5
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """`[B, T, D]` -> `[B, D]`."""
        width = tokens.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        probe = self.param("probe", nn.initializers.normal(width**-0.5), (width,), self.param_dtype)
        probe = jnp.broadcast_to(probe, (tokens.shape[0], 1, width))
        x = Attention(self.num_heads, attention=self.attention, name="attn", **dtypes)(probe, tokens)[:, 0]
        norm = LayerNorm(self.ln_eps, name="ln", **dtypes)
        return x + Mlp(round(self.mlp_ratio * width), self.act, name="mlp", **dtypes)(norm(x))

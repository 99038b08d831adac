"""Post-norm Transformer layers, those of BERT."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax.models.attention import Attention
from mmjax.models.layers import LayerNorm
from mmjax.models.mlp import Mlp


class PostNormLayer(nn.Module):
    """Post-norm layer: `x = ln_1(x + attn(x)); x = ln_cross(x + cross_attn(x, context)); x = ln_2(x + mlp(x))`.

    The middle step is there where a context is given. Without it the layer is BERT's, with it that of encoders which
    fuse text with picture tokens (ALBEF, LXMERT, mPLUG-2).

    Parameters `attn/{query,key,value,out}`, `ln_1`, `mlp/{fc1,fc2}`, `ln_2`; with a context also
    `cross_attn/{query,key,value,out}`, `ln_cross`.

    Attributes:
      num_heads, attention: see `Attention`.
      mlp_dim: hidden width of the MLP.
      act: activation of the MLP, see `Mlp`.
      dropout_rate: of each branch, before it is added.
      out_scale: multiplier of the initial standard deviation of the branches' last layers.
      ln_eps: of the layer norms.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019;
      google-research/bert at eedf571. Cross-attention: Li et al., "Align before Fuse" (ALBEF), NeurIPS 2021.
    """

    num_heads: int
    mlp_dim: int
    act: str = "gelu"
    dropout_rate: float = 0.0
    out_scale: float = 1.0
    ln_eps: float = 1e-12
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        mask: jax.Array | None = None,
        deterministic: bool = True,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        """Runs the layer.

        Args:
          tokens: `[B, T, D]`.
          mask: bool `[B, T]`, False = padding that is not attended to, or broadcastable to `[B, N, T, T]`.
          deterministic: whether dropout is off.
          context: `[B, R, C]`, what the tokens cross-attend to.
          context_mask: bool `[B, R]`, or broadcastable to `[B, N, T, R]`.

        Returns:
          `[B, T, D]`. A token without keys gets the bias of `out` alone.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        attention = functools.partial(
            Attention, self.num_heads, out_scale=self.out_scale, attention=self.attention, **dtypes
        )
        mlp = Mlp(self.mlp_dim, self.act, out_scale=self.out_scale, name="mlp", **dtypes)
        dropout = nn.Dropout(self.dropout_rate, deterministic=deterministic)

        def add(x: jax.Array, branch: jax.Array, norm_name: str) -> jax.Array:
            return LayerNorm(self.ln_eps, name=norm_name, **dtypes)(x + dropout(branch))

        x = add(tokens, attention(name="attn")(tokens, mask=_of_keys(mask)), "ln_1")
        if context is not None:
            x = add(x, attention(name="cross_attn")(x, context, mask=_of_keys(context_mask)), "ln_cross")
        return add(x, mlp(x), "ln_2")


def _of_keys(mask: jax.Array | None) -> jax.Array | None:
    """A mask `[B, K]` of keys as one of attention, `[B, 1, 1, K]`; others as they are."""
    return mask[:, None, None, :] if mask is not None and mask.ndim == 2 else mask

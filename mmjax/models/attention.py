"""Multi-head attention."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_choice
from mmjax.models.layers import Dense
from mmjax.models.site import Site
from mmjax.ops.attention import attend, attention_probabilities, fused_attention, has_flash_attention


class Attention(nn.Module):
    """Multi-head self- or cross-attention, `softmax(q k^T / sqrt(H)) v` per head of width H = D / num_heads.

    Parameters `query`, `key`, `value`, `out`: each a kernel `[in, D]` with bias; head h owns columns h*H to (h+1)*H.
    Places: `probs` `[B, N, Q, K]` float32, `heads` `[B, N, Q, H]` (what each head hands to `out`).

    Attributes:
      num_heads: number of heads; divides the width of the queries.
      out_scale: multiplier of the initial standard deviation D^-1/2 of `out`.
      attention: "einsum" = two products with the probabilities between them; "fused" = `fused_attention`, which has no
        `probs`; "auto" = fused where `has_flash_attention`, else einsum.
      dtype: of the computation (the softmax is float32 always); None = that of the inputs and parameters.
      param_dtype: of the parameters.
    """

    num_heads: int
    out_scale: float = 1.0
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, q_in: jax.Array, kv_in: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        """Attends from `q_in` to `kv_in`.

        Args:
          q_in: `[B, Q, D]`.
          kv_in: `[B, K, C]`; None = `q_in` (self-attention).
          mask: bool broadcastable to `[B, N, Q, K]`, True = attend. A query without keys gets the bias of `out` alone.

        Returns:
          `[B, Q, D]`.

        Raises:
          ValueError: the width is not divisible by the number of heads, or `attention` is unknown.
        """
        check_choice("Attention", "attention", self.attention, ("einsum", "fused", "auto"))
        width = q_in.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"Attention: width {width} is not divisible by num_heads {self.num_heads}")
        kv_in = q_in if kv_in is None else kv_in

        def dense(name: str, scale: float = 1.0) -> Dense:
            init = nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
            return Dense(width, kernel_init=init, dtype=self.dtype, param_dtype=self.param_dtype, name=name)

        def heads(name: str, x: jax.Array) -> jax.Array:
            x = dense(name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, width // self.num_heads).swapaxes(1, 2)

        query, key, value = heads("query", q_in), heads("key", kv_in), heads("value", kv_in)
        probs = Site(name="probs")
        fused = self.attention == "fused" or (self.attention == "auto" and has_flash_attention(query, key, mask=mask))
        if fused:
            probs.absent(f"attention={self.attention!r} never holds the probabilities; set attention='einsum'")
            attended = fused_attention(query, key, value, mask=mask)
        else:
            attended = attend(probs(attention_probabilities(query, key, mask=mask)), value)
        attended = Site(name="heads")(attended)
        return dense("out", self.out_scale)(attended.swapaxes(1, 2).reshape(q_in.shape))

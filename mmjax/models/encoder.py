"""A stack of blocks: unrolled, scanned, rematerialised."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_choice
from mmjax.models.block import Block

# What the forward pass keeps for the backward pass; the rest is computed again.
_REMAT_POLICIES: Mapping[str, Callable[..., bool]] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Encoder(nn.Module):
    """A stack of pre-norm blocks.

    Unrolled, the parameters are `block_0/...` to `block_{L-1}/...`. With `scan` they are `blocks/...` with a leading
    axis L, and compilation time does not grow with depth. `stack_layers`, `unstack_layers` convert between the two.

    Attributes:
      num_layers: L.
      num_heads, mlp_ratio, act, layer_scale, dropout_rate, ln_eps, attention, dtype, param_dtype: see `Block`.
      scan: whether the layers are scanned.
      remat: what the backward pass recomputes: "none"; "full" = all of a block; "dots" = all but matrix products;
        "dots_no_batch" = all but products with parameters.
    """

    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    layer_scale: float | None = None
    dropout_rate: float = 0.0
    ln_eps: float = 1e-5
    attention: str = "einsum"
    scan: bool = False
    remat: str = "none"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, deterministic: bool = True
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Runs the blocks.

        Args:
          x: `[B, T, D]`.
          mask: bool broadcastable to `[B, N, T, T]`, True = attend.
          deterministic: whether dropout is off.

        Returns:
          The output `[B, T, D]`, and the output of each block.
        """
        check_choice("Encoder", "remat", self.remat, ("none", *_REMAT_POLICIES))
        block = Block
        if self.remat != "none":
            policy = _REMAT_POLICIES[self.remat]
            # Inside a scan nothing can be shared between forward and backward, so the barrier would only cost.
            block = nn.remat(Block, policy=policy, prevent_cse=not self.scan, static_argnums=(3,))
        settings = {
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "act": self.act,
            "layer_scale": self.layer_scale,
            "dropout_rate": self.dropout_rate,
            "out_scale": (2 * self.num_layers) ** -0.5,
            "ln_eps": self.ln_eps,
            "attention": self.attention,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        if self.scan:

            def body(layer: nn.Module, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
                x = layer(x, mask, deterministic)
                return x, x

            run = nn.scan(
                body,
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=self.num_layers,
            )
            x, outputs = run(block(**settings, name="blocks"), x, mask)
            return x, tuple(outputs[i] for i in range(self.num_layers))
        outputs = []
        for i in range(self.num_layers):
            x = block(**settings, name=f"block_{i}")(x, mask, deterministic)
            outputs.append(x)
        return x, tuple(outputs)

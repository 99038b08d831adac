"""A stack of blocks: unrolled, scanned, rematerialised."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_choice
from mmjax.models.block import Block
from mmjax.models.post_norm import PostNormLayer

# What the forward pass keeps for the backward pass; the rest is computed again.
_REMAT_POLICIES: Mapping[str, Callable[..., bool]] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Encoder(nn.Module):
    """A stack of pre-norm blocks, or of post-norm layers.

    Unrolled, the parameters are `block_0/...` to `block_{L-1}/...`. With `scan` they are `blocks/...` with a leading
    axis L, and compilation time does not grow with depth. `stack_layers`, `unstack_layers` convert between the two.

    Attributes:
      num_layers: L.
      norm_position: "pre" = `Block`, "post" = `PostNormLayer`, which has no layer scale.
      num_heads, mlp_ratio, act, layer_scale, dropout_rate, ln_eps, attention, dtype, param_dtype: see `Block`.
      scan: whether the layers are scanned.
      remat: what the backward pass recomputes: "none"; "full" = all of a block; "dots" = all but matrix products;
        "dots_no_batch" = all but products with parameters.
    """

    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    act: str = "gelu"
    norm_position: str = "pre"
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
        block, settings = self._block(x.shape[-1])
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

    def _block(self, width: int) -> tuple[type[nn.Module], dict[str, Any]]:
        """The class of the blocks, rematerialised as asked, and its settings."""
        check_choice("Encoder", "remat", self.remat, ("none", *_REMAT_POLICIES))
        check_choice("Encoder", "norm_position", self.norm_position, ("pre", "post"))
        settings = {
            "num_heads": self.num_heads,
            "act": self.act,
            "dropout_rate": self.dropout_rate,
            "out_scale": (2 * self.num_layers) ** -0.5,
            "ln_eps": self.ln_eps,
            "attention": self.attention,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        block: type[nn.Module]
        if self.norm_position == "pre":
            block, settings = Block, settings | {"mlp_ratio": self.mlp_ratio, "layer_scale": self.layer_scale}
        elif self.layer_scale is None:
            block, settings = PostNormLayer, settings | {"mlp_dim": round(self.mlp_ratio * width)}
        else:
            raise ValueError(f"Encoder: layer_scale is {self.layer_scale}, but norm_position 'post' has none")
        if self.remat != "none":
            policy = _REMAT_POLICIES[self.remat]
            # Inside a scan nothing can be shared between forward and backward, so the barrier would only cost.
            block = nn.remat(block, policy=policy, prevent_cse=not self.scan, static_argnums=(3,))
        return block, settings

"""Bottleneck adapters: Houlsby's, Pfeiffer's and parallel ones (AdaptFormer)."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmjax._checks import check_choice
from mmjax.intercept import Call, Target
from mmjax.ops import at_least_float32, gelu
from mmjax.peft.adapter import Adapter, Params
from mmjax.peft.branch import Branch, make_adapter

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


class BottleneckAdapter(nn.Module):
    """Down, activation, up: `x + scale up(act(down(x)))`, in float32 whatever comes in.

    Parameters `down`, `up` (each `kernel`, `bias`), with a norm `ln`, with a learnable scale `scale` `[1]`. `up` starts
    from zeros: with the residual the module is the identity then, without it zero.

    Attributes:
      bottleneck: width of the middle.
      activation: "relu", "gelu" (exact), "silu" or "tanh".
      scale: a number, or "learnable", from 1.
      layer_norm: "none", "in" (before `down`) or "out" (after the scale).
      residual: whether the input is added.

    Reference:
      Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, section 2.1; He et al., "Towards a
      Unified View of Parameter-Efficient Transfer Learning", ICLR 2022 (scale); ShoufaChen/AdaptFormer at 6967d67.
    """

    bottleneck: int
    activation: str = "relu"
    scale: float | str = 1.0
    layer_norm: str = "none"
    residual: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` to `[..., D]`, the dtype of `x`."""
        check_choice("BottleneckAdapter", "activation", self.activation, _ACTIVATIONS)
        check_choice("BottleneckAdapter", "layer_norm", self.layer_norm, ("none", "in", "out"))
        if isinstance(self.scale, str):
            check_choice("BottleneckAdapter", "scale", self.scale, ("learnable",))
        # Uniform in +-1/sqrt(in), PyTorch's default for linear layers.
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        dense = functools.partial(nn.Dense, dtype=jnp.float32)
        norm = nn.LayerNorm(1e-5, dtype=jnp.float32, use_fast_variance=False, name="ln")
        wide = at_least_float32(x)
        y = norm(wide) if self.layer_norm == "in" else wide
        y = _ACTIVATIONS[self.activation](dense(self.bottleneck, kernel_init=init, name="down")(y))
        y = dense(x.shape[-1], kernel_init=nn.initializers.zeros, name="up")(y)
        y = y * (self.param("scale", nn.initializers.ones, (1,)) if isinstance(self.scale, str) else self.scale)
        y = norm(y) if self.layer_norm == "out" else y
        return (y + wide if self.residual else y).astype(x.dtype)


def bottleneck(
    bottleneck: int = 64,
    *,
    placement: str = "pfeiffer",
    activation: str = "relu",
    scale: float | str | None = None,
    layer_norm: str = "none",
    norm: str = "pre",
    blocks: str = "**/block*",
) -> Adapter:
    """A bottleneck adapter A in each block of a Transformer. A model is unchanged at the start.

    | placement | pre-norm block | post-norm block |
    |---|---|---|
    | houlsby | `x += A(attn(ln(x))); x += A'(mlp(ln(x)))` | `x = ln(x + A(attn(x))); x = ln(x + A'(mlp(x)))` |
    | pfeiffer | only the second | only the second |
    | parallel | `x += mlp(ln(x)) + A0(x)` | `x = ln(x + mlp(x) + A0(x))` |

    A0 is A without the residual. Parameters, see `BottleneckAdapter`: at `attn` and `mlp` of each block; in parallel
    with pre-norm at the block itself, whose output the branch is added to, so that layer scale does not touch it.

    Args:
      bottleneck: width of the middle.
      placement: "houlsby", "pfeiffer" or "parallel".
      activation, layer_norm: see `BottleneckAdapter`; with a norm "out" the start is another model's.
      scale: see `BottleneckAdapter`; None = 1, in parallel 0.1.
      norm: where the block has its norms, "pre" or "post"; matters to "parallel" alone.
      blocks: pattern of the blocks.

    Returns:
      The adapter; it does not merge.

    Reference:
      Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, figure 2; Pfeiffer et al.,
      "AdapterFusion", EACL 2021; Chen et al., "AdaptFormer", NeurIPS 2022, equation 3; ShoufaChen/AdaptFormer at
      6967d67.
    """
    check_choice("bottleneck", "placement", placement, ("houlsby", "pfeiffer", "parallel"))
    check_choice("bottleneck", "norm", norm, ("pre", "post"))
    parallel = placement == "parallel"
    factor = scale if scale is not None else 0.1 if parallel else 1.0
    module = BottleneckAdapter(bottleneck, activation, factor, layer_norm, residual=not parallel)
    if parallel:
        return make_adapter("bottleneck", {blocks if norm == "pre" else f"{blocks}/mlp": _parallel(module, norm=norm)})
    sites = {"houlsby": ("attn", "mlp"), "pfeiffer": ("mlp",)}[placement]
    return make_adapter("bottleneck", {f"{blocks}/{site}": module for site in sites})


def _parallel(module: nn.Module, *, norm: str) -> Branch:
    def init(rng: jax.Array, target: Target, base: Params) -> Params:
        return module.init(rng, jnp.zeros(target.value.shape, target.value.dtype))["params"]

    def apply(params: Params, value: jax.Array, call: Call) -> jax.Array:
        return value + call.apply(module, params, _stream(call) if norm == "pre" else call.input)

    return Branch(init, apply)


def _stream(block: Call) -> jax.Array:
    """What the MLP of a pre-norm block is added to: the input of the norm before it."""
    names = list(block.children)
    if "mlp" not in names or "ln_2" not in names or names.index("ln_2") > names.index("mlp"):
        raise ValueError(
            f"bottleneck: {block.path!r} calls {', '.join(names)}, expected ln_2 before mlp, as in a pre-norm block; "
            "set norm='post', or the pattern of the blocks"
        )
    return block.children["ln_2"].input

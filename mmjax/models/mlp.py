"""The feed-forward half of a block."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_choice
from mmjax.models.layers import Dense
from mmjax.models.site import Site
from mmjax.ops.activations import gelu, quick_gelu

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "swiglu": jax.nn.silu,
}


class Mlp(nn.Module):
    """Two Dense layers, `fc2(act(fc1(x)))`, or with act "swiglu" the gated `down(silu(gate(x)) * up(x))`.

    Parameters `fc1` `[D, M]`, `fc2` `[M, D]`; gated: `gate`, `up` `[D, M]`, `down` `[M, D]`.
    Place: `hidden` `[..., M]`, what enters the last layer.

    Attributes:
      hidden_dim: M.
      act: "gelu" (exact), "gelu_tanh", "quick_gelu" or "swiglu".
      out_scale: multiplier of the initial standard deviation D^-1/2 of the last layer.
      dtype: of the computation; None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Shazeer, "GLU Variants Improve Transformer", 2020, equation 6 (swiglu).
    """

    hidden_dim: int
    act: str = "gelu"
    out_scale: float = 1.0
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` to `[..., D]`."""
        check_choice("Mlp", "act", self.act, _ACTIVATIONS)
        dense = functools.partial(Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        init = nn.initializers.variance_scaling
        widen = functools.partial(dense, self.hidden_dim, kernel_init=init(0.5, "fan_in", "normal"))
        narrow = functools.partial(dense, x.shape[-1], kernel_init=init(self.out_scale**2, "fan_out", "normal"))
        act = _ACTIVATIONS[self.act]
        if self.act == "swiglu":
            hidden = act(widen(name="gate")(x)) * widen(name="up")(x)
            return narrow(name="down")(Site(name="hidden")(hidden))
        return narrow(name="fc2")(Site(name="hidden")(act(widen(name="fc1")(x))))

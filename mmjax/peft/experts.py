"""A mixture of bottleneck adapters with a router."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmjax.intercept import tap
from mmjax.models import Site
from mmjax.ops import at_least_float32
from mmjax.peft.adapter import Adapter
from mmjax.peft.bottleneck import BottleneckAdapter
from mmjax.peft.branch import make_adapter


class BottleneckExperts(nn.Module):
    """Each token's own mixture of bottleneck adapters: `x + sum_e w_e A_e(x)`, `w = softmax(router(x))`.

    With `top_k`, the softmax is over the k largest logits and the other weights are zero. Parameters `router/kernel`
    `[D, E]`, and `experts` as in `BottleneckAdapter`, with an axis E in front. Places: `weights` `[..., E]`, and
    `balance`, the load balance E sum_e (share of tokens whose largest weight is e) (mean probability of e): 1 for even
    use, up to E; its gradient flows through the probabilities.

    Attributes:
      num_experts: E.
      bottleneck, activation, scale: see `BottleneckAdapter`.
      top_k: number of experts a token has; None = all.

    Reference:
      Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, section 2.1; Fedus et al., "Switch Transformers",
      JMLR 2022, equation 4 (balance).
    """

    num_experts: int
    bottleneck: int
    activation: str = "relu"
    scale: float | str = 1.0
    top_k: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., D]` to `[..., D]`, the dtype of `x`."""
        if self.top_k is not None and not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"BottleneckExperts: top_k is {self.top_k}, expected 1 to num_experts {self.num_experts}")
        wide = at_least_float32(x)
        logits = nn.Dense(self.num_experts, use_bias=False, dtype=jnp.float32, name="router")(wide)
        probabilities = jax.nn.softmax(logits)
        first = jax.nn.one_hot(jnp.argmax(logits, axis=-1), self.num_experts)
        tokens = tuple(range(logits.ndim - 1))
        Site(name="balance")(self.num_experts * jnp.sum(first.mean(tokens) * probabilities.mean(tokens)))
        if self.top_k is not None:
            # By index, and not by a threshold: of equal logits no more than k may stay.
            _, chosen = jax.lax.top_k(logits, self.top_k)
            kept = jax.nn.one_hot(chosen, self.num_experts).sum(-2) > 0
            probabilities = jax.nn.softmax(logits, where=kept)
        weights = Site(name="weights")(probabilities)
        experts = nn.vmap(
            BottleneckAdapter,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=-1,
            axis_size=self.num_experts,
        )(self.bottleneck, self.activation, self.scale, residual=False, name="experts")
        return (wide + jnp.einsum("...de,...e->...d", experts(wide), weights)).astype(x.dtype)


def experts(
    num_experts: int = 4,
    bottleneck: int = 64,
    *,
    top_k: int | None = None,
    activation: str = "relu",
    scale: float | str = 1.0,
    sites: str = "**/block*/mlp",
) -> Adapter:
    """A mixture of bottleneck adapters after each MLP, `BottleneckExperts`. A model is unchanged at the start.

    Args:
      num_experts: E.
      bottleneck: width of each expert's middle.
      top_k: number of experts a token has; None = all, weighted.
      activation, scale: see `BottleneckAdapter`.
      sites: pattern of the modules whose output it follows.

    Returns:
      The adapter; it does not merge. `load_balance` reads the balance of its routers.
    """
    module = BottleneckExperts(num_experts, bottleneck, activation, scale, top_k)
    return make_adapter("experts", {sites: module})


def load_balance(apply: Callable[..., Any]) -> Callable[..., tuple[Any, jax.Array]]:
    """`apply` that also returns the load balance of `experts`, the mean over their sites and layers.

    Args:
      apply: wrapped by `experts`.

    Returns:
      A function of the same arguments that returns `(output, balance)`; times a small weight (0.01), the balance is a
      term of the loss.

    Raises:
      NoMatchError: at the call, if there are no experts.
    """
    tapped = tap(apply, "**/adapter/balance")

    @functools.wraps(apply)
    def balanced(*args: Any, **kwargs: Any) -> tuple[Any, jax.Array]:
        output, values = tapped(*args, **kwargs)
        return output, jnp.mean(jnp.concatenate([value.reshape(-1) for value in values.values()]))

    return balanced

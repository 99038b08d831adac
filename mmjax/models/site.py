"""Named places inside a model."""

import jax
from flax import linen as nn


class Site(nn.Module):
    """A named place in a model: the identity, so that a value has a path under which it can be tapped or edited.

    `Site(name="probs")(x)` inside `attn` puts `x` at `.../attn/probs`. No parameters, no cost once compiled.
    `Site(name="probs").absent(reason)` says instead why there is no such value; interception that looks for it then
    fails with the reason.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return x

    def absent(self, reason: str) -> None:
        """Says that this place has no value, and why."""

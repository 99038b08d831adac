"""`Method`: what a published system hands to the training loop, as a value of pure functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Batch = Mapping[str, Any]
Params = Mapping[str, Any]
Stats = Mapping[str, Any]


class Variables(NamedTuple):
    """What a method starts from.

    Attributes:
      params: nested dict of arrays; the partition says which of them train.
      stats: what changes without a gradient: EMA teachers, queues, references, batch statistics.
    """

    params: Params
    stats: Stats


class Term(NamedTuple):
    """A term of the loss: its value (scalar, before weighting) and its weight."""

    value: jax.Array
    weight: jax.typing.ArrayLike = 1.0


class Aux(NamedTuple):
    """What a loss returns beside its value.

    Attributes:
      terms: the named terms whose weighted sum is the loss.
      metrics: further scalars for the log.
      stats: the stats of the next step.
    """

    terms: Mapping[str, Term]
    metrics: Mapping[str, jax.Array]
    stats: Stats


class SplitLoss(NamedTuple):
    """A loss in two parts: `embed` treats every example apart, `head` compares them. It is called as `Method.loss` is.

    `loss(params, stats, batch, rng, step) = head(params, stats, embed(params, stats, batch, rng_0, step), batch, ...)`

    Cut here, the gradient of a whole batch is computed exactly from chunks of it
    (`mmjax.optim.cached_value_and_grad`). Terms of one example alone, such as the cross-entropy of a caption's
    tokens, belong to `embed`, which returns their values `[B]`: their logits then exist for one chunk only. Teachers
    are embedded beside the student, behind a `stop_gradient`.

    Attributes:
      embed: `(params, stats, batch, rng, step) -> embeddings`, any tree of arrays `[B, ...]`; no example may depend
        on another (no batch statistics). Its key is `fold_in(rng, 0)`, or of the chunk's index in place of 0.
      head: `(params, stats, embeddings, batch, rng, step) -> (value, Aux)`, of the whole batch.
    """

    embed: Callable[[Params, Stats, Batch, jax.Array, jax.Array], Any]
    head: Callable[[Params, Stats, Any, Batch, jax.Array, jax.Array], tuple[jax.Array, Aux]]

    def __call__(
        self, params: Params, stats: Stats, batch: Batch, rng: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, Aux]:
        embeddings = self.embed(params, stats, batch, jax.random.fold_in(rng, 0), step)
        return self.head(params, stats, embeddings, batch, rng, step)


class Method(NamedTuple):
    """A published system as pure functions.

    Attributes:
      init: `(rng, batch) -> Variables`.
      loss: `(params, stats, batch, rng, step) -> (value, Aux)`, value a scalar; a `SplitLoss` where examples are
        compared with one another, so that large batches fit.
      encoders: modality -> `(params, batch) -> embeddings`, [B, D], not normalised.
      partition: ordered rules `(pattern, trains)` over parameter paths; the first match claims a leaf, and every leaf
        must be claimed.
    """

    init: Callable[[jax.Array, Batch], Variables]
    loss: Callable[[Params, Stats, Batch, jax.Array, jax.Array], tuple[jax.Array, Aux]]
    encoders: Mapping[str, Callable[[Params, Batch], jax.Array]]
    partition: tuple[tuple[str, bool], ...] = (("**", True),)


def weighted_sum(terms: Mapping[str, Term]) -> jax.Array:
    """The loss of named terms: the sum of weight times value, in float32.

    >>> float(weighted_sum({"contrast": Term(jnp.float32(2.0)), "caption": Term(jnp.float32(1.0), 0.5)}))
    2.5
    """
    return sum((jnp.asarray(t.weight, jnp.float32) * t.value for t in terms.values()), jnp.float32(0.0))

"""The three ways in which the losses here reduce the pairs of a row or of a column to one number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmjax.losses._pairs import Reduction, Stats


class Logits(NamedTuple):
    """Pairs `[n, m]`, and (bool, broadcastable) which of them belong together."""

    values: jax.Array
    positive: jax.Array


class TaughtLogits(NamedTuple):
    """Pairs `[n, m]` of a student and of its teacher."""

    student: jax.Array
    teacher: jax.Array


def _softmax_part(pairs: Logits, axis: int) -> Stats:
    return jax.nn.logsumexp(pairs.values, axis=axis), _positive(pairs, axis)


def _softmax_merge(a: Stats, b: Stats) -> Stats:
    return jnp.logaddexp(a[0], b[0]), a[1] + b[1]


def _softmax_share(pairs: Logits, stats: Stats, axis: int) -> jax.Array:
    normalizer, _ = stats
    return jnp.sum(jnp.exp(pairs.values - jnp.expand_dims(normalizer, axis)), axis=axis) - _positive(pairs, axis)


def _positive(pairs: Logits, axis: int) -> jax.Array:
    return jnp.sum(jnp.where(pairs.positive, pairs.values, 0), axis=axis)


SOFTMAX = Reduction(
    empty=(-jnp.inf, 0.0),
    part=_softmax_part,
    merge=_softmax_merge,
    value=lambda stats: stats[0] - stats[1],
    share=_softmax_share,
)
"""`logsumexp_j L_ij - L_ip`, p the positive of i."""


@jax.custom_jvp
def _softplus(x: jax.Array) -> jax.Array:
    return jax.nn.softplus(x)


# The derivative as one logistic function; JAX's own goes back through the logarithm, a tenth of the loss's time.
_softplus.defjvp(lambda primals, tangents: (_softplus(*primals), lax.logistic(*primals) * tangents[0]))


def _sigmoid_part(pairs: Logits, axis: int) -> Stats:
    wrong = jnp.where(pairs.positive, -pairs.values, pairs.values)
    return (jnp.sum(_softplus(wrong), axis=axis),)


SIGMOID = Reduction(
    empty=(0.0,),
    part=_sigmoid_part,
    merge=lambda a, b: (a[0] + b[0],),
    value=lambda stats: stats[0],
    share=lambda pairs, stats, axis: _sigmoid_part(pairs, axis)[0],
)
"""`sum_j softplus(-y_ij L_ij)`, y +1 for positives and -1 for others."""


def _taught_part(pairs: TaughtLogits, axis: int) -> Stats:
    normalizer = jax.nn.logsumexp(pairs.teacher, axis=axis)
    return jax.nn.logsumexp(pairs.student, axis=axis), normalizer, _expected(pairs, normalizer, axis)


def _taught_merge(a: Stats, b: Stats) -> Stats:
    normalizer = jnp.logaddexp(a[1], b[1])
    expected = a[2] * jnp.exp(a[1] - normalizer) + b[2] * jnp.exp(b[1] - normalizer)
    return jnp.logaddexp(a[0], b[0]), normalizer, expected


def _taught_share(pairs: TaughtLogits, stats: Stats, axis: int) -> jax.Array:
    normalizer, teacher_normalizer, _ = stats
    mass = jnp.sum(jnp.exp(pairs.student - jnp.expand_dims(normalizer, axis)), axis=axis)
    return mass - _expected(pairs, teacher_normalizer, axis)


def _expected(pairs: TaughtLogits, normalizer: jax.Array, axis: int) -> jax.Array:
    """The student's logit where the teacher looks."""
    return jnp.sum(jnp.exp(pairs.teacher - jnp.expand_dims(normalizer, axis)) * pairs.student, axis=axis)


TAUGHT = Reduction(
    empty=(-jnp.inf, -jnp.inf, 0.0),
    part=_taught_part,
    merge=_taught_merge,
    value=lambda stats: stats[0] - stats[2],
    share=_taught_share,
)
"""`logsumexp_j S_ij - sum_j softmax_j(R_ij) S_ij`, S the student's logits and R the teacher's."""

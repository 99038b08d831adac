"""Accuracy of class scores."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_integer, check_rank, check_same_axis
from mmjax.ops.precision import at_least_float32


def topk_accuracy(logits: ArrayLike, labels: ArrayLike, *, k: int = 1) -> jax.Array:
    """Share of examples whose label is among the k largest scores; of equal scores the lower index wins.

    A NaN score of the label is the lowest, of any other class the highest.

    Args:
      logits: `[N, C]` scores, higher is better.
      labels: `[N]` int in [0, C).
      k: depth, at least 1.

    Returns:
      `[]` float32 in [0, 1].

    Raises:
      ValueError: shapes disagree.
      TypeError: `labels` is not of integers.

    >>> logits = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    >>> print(topk_accuracy(logits, jnp.array([1, 1])), topk_accuracy(logits, jnp.array([1, 1]), k=2))
    0.5 1.0

    Reference:
      Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, section 4.1;
      LAION-AI/CLIP_benchmark at 48de38c, `accuracy`.
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    check_rank("topk_accuracy", rank=2, logits=logits)
    check_rank("topk_accuracy", rank=1, labels=labels)
    check_integer("topk_accuracy", labels=labels)
    check_same_axis("topk_accuracy", axis=0, logits=logits, labels=labels)
    classes, labels = jnp.arange(logits.shape[1]), labels[:, None]
    own = jnp.max(jnp.where(classes == labels, logits, -jnp.inf), axis=1, keepdims=True)
    ahead = jnp.where(classes < labels, ~(logits < own), ~(logits <= own)) & (classes != labels)
    return jnp.mean(jnp.sum(ahead, axis=1) < k, dtype=jnp.float32)

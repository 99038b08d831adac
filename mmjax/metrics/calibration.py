"""Whether a classifier is right as often as it says it is."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_integer, check_rank, check_same_axis
from mmjax.ops.precision import at_least_float32


def expected_calibration_error(probs: ArrayLike, labels: ArrayLike, *, num_bins: int = 15) -> dict[str, jax.Array]:
    """Calibration errors over equal bins of confidence, the largest probability of an example.

    `ece = sum_b count_b / N |accuracy_b - confidence_b|` and `mce = max_b |accuracy_b - confidence_b|` over
    the bins (lo, hi] that are not empty

    Args:
      probs: `[N, C]` class probabilities, rows sum to 1.
      labels: `[N]` int in [0, C).
      num_bins: bins over [0, 1].

    Returns:
      ece `[]` and mce `[]`, accuracy `[num_bins]` and confidence `[num_bins]`, float32 in [0, 1], count
      `[num_bins]` int32; an empty bin has zeros.

    Raises:
      ValueError: shapes disagree.
      TypeError: `labels` is not of integers.

    >>> probs = jnp.array([[0.9, 0.1], [0.9, 0.1]])
    >>> result = expected_calibration_error(probs, jnp.array([0, 1]), num_bins=2)
    >>> print(result["ece"].round(3), result["accuracy"], result["count"])
    0.4 [0.  0.5] [0 2]

    Reference:
      Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
    """
    probs, labels = at_least_float32(probs), jnp.asarray(labels)
    check_rank("expected_calibration_error", rank=2, probs=probs)
    check_rank("expected_calibration_error", rank=1, labels=labels)
    check_integer("expected_calibration_error", labels=labels)
    check_same_axis("expected_calibration_error", axis=0, probs=probs, labels=labels)
    top = jnp.max(probs, axis=1)
    right = (jnp.argmax(probs, axis=1) == labels).astype(jnp.int32)
    upper_edges = jnp.arange(1, num_bins) / num_bins
    bins = jnp.searchsorted(upper_edges, top, side="left")
    count, hits, mass = (jax.ops.segment_sum(x, bins, num_segments=num_bins) for x in (jnp.ones_like(bins), right, top))
    accuracy, confidence = hits / jnp.maximum(count, 1), mass / jnp.maximum(count, 1)
    gap = jnp.abs(accuracy - confidence)
    return {
        "ece": jnp.sum(count * gap) / len(probs),
        "mce": jnp.max(gap),
        "accuracy": accuracy,
        "confidence": confidence,
        "count": count,
    }

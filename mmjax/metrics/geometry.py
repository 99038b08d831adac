"""How embeddings lie in their space: gap of modalities, closeness of pairs, spread, dimensions in use."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_rank, check_same_axis, check_same_shape
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.precision import at_least_float32


def modality_gap(a: ArrayLike, b: ArrayLike) -> dict[str, jax.Array]:
    """Difference of the centres of two modalities on the sphere.

    `vector = mean_i n(a_i) - mean_j n(b_j)`, `gap = ||vector||`, where `n = l2_normalize`

    Args:
      a: `[N, D]` embeddings of one modality, un-normalised.
      b: `[M, D]` embeddings of the other; pairs are not needed.

    Returns:
      vector `[D]` and its norm, gap `[]` in [0, 2], float32.

    Raises:
      ValueError: shapes disagree.

    >>> print(modality_gap(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, 3.0]]))["vector"])
    [ 1. -1.]

    Reference:
      Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
      Learning", NeurIPS 2022, section 4.2.
    """
    check_rank("modality_gap", rank=2, a=a, b=b)
    check_same_axis("modality_gap", axis=1, a=a, b=b)
    centre_a, centre_b = (jnp.mean(l2_normalize(at_least_float32(x)), axis=0) for x in (a, b))
    vector = centre_a - centre_b
    return {"vector": vector, "gap": _power(jnp.sum(jnp.square(vector)), 0.5)}


def alignment(a: ArrayLike, b: ArrayLike, *, power: float | jax.Array = 2.0) -> jax.Array:
    """Mean distance of positive pairs on the sphere.

    `mean_i ||n(a_i) - n(b_i)||^power`, where `n = l2_normalize`

    Args:
      a: `[N, D]` embeddings, un-normalised.
      b: `[N, D]` embeddings, row i belongs to row i of `a`.
      power: exponent of the distances, positive.

    Returns:
      `[]` float32 in [0, 2^power]; 0 where all pairs coincide.

    Raises:
      ValueError: shapes differ.

    >>> print(alignment(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[3.0, 0.0], [1.0, 0.0]])))
    1.0

    Reference:
      Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
      the Hypersphere", ICML 2020, section 4.1; ssnl/align_uniform at 78ccdb1, `align_loss`.
    """
    check_rank("alignment", rank=2, a=a, b=b)
    check_same_shape("alignment", a=a, b=b)
    difference = l2_normalize(at_least_float32(a)) - l2_normalize(at_least_float32(b))
    return jnp.mean(_power(jnp.sum(jnp.square(difference), axis=1), power / 2))


def uniformity(x: ArrayLike, *, t: float | jax.Array = 2.0) -> jax.Array:
    """Logarithm of the mean Gaussian potential of all pairs on the sphere.

    `log mean_{i<j} exp(-t ||n(x_i) - n(x_j)||^2)`, where `n = l2_normalize`

    Holds all pairs, `[N, N]`: give it a sample of a large set.

    Args:
      x: `[N, D]` embeddings, un-normalised, N at least 2.
      t: sharpness of the potential, positive.

    Returns:
      `[]` float32 in [-4t, 0]; lower is more uniform, 0 a single point.

    Raises:
      ValueError: `x` does not have two axes and two rows.

    >>> print(uniformity(jnp.array([[1.0, 0.0], [0.0, 1.0]])))
    -4.0

    Reference:
      Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
      the Hypersphere", ICML 2020, section 4.1; ssnl/align_uniform at 78ccdb1, `uniform_loss`.
    """
    check_rank("uniformity", rank=2, x=x)
    x = l2_normalize(at_least_float32(x))
    if len(x) < 2:
        raise ValueError(f"uniformity: x has shape {x.shape}, expected at least 2 rows to form a pair")
    first, second = jnp.triu_indices(len(x), k=1)
    square = jnp.sum(jnp.square(x), axis=1)
    product = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    distance = (square[:, None] + square - 2 * product)[first, second]
    return jax.nn.logsumexp(-t * distance) - jnp.log(len(first))


def effective_rank(x: ArrayLike, *, center: bool = False) -> jax.Array:
    """Number of dimensions in use.

    `exp(-sum_i p_i log p_i)`, where `p = sigma / sum(sigma)` are the shares of the singular values

    Args:
      x: `[N, D]` embeddings, used as they are.
      center: whether the mean row is taken off first.

    Returns:
      `[]` float32 in [1, min(N, D)]; 0 for a matrix of zeros.

    Raises:
      ValueError: `x` does not have two axes.

    >>> print(effective_rank(jnp.diag(jnp.array([3.0, 3.0, 0.0]))).round(3))
    2.0

    Reference:
      Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", EUSIPCO 2007.
    """
    check_rank("effective_rank", rank=2, x=x)
    x = at_least_float32(x)
    if center:
        x = x - jnp.mean(x, axis=0)
    sigma = jnp.linalg.svd(x, compute_uv=False)
    total = jnp.sum(sigma)
    share = sigma / jnp.where(total == 0, 1.0, total)
    return jnp.where(total == 0, 0.0, jnp.exp(jnp.sum(jax.scipy.special.entr(share))))


def _power(square: jax.Array, exponent: float | jax.Array) -> jax.Array:
    """`square ** exponent`, with gradient 0 at 0."""
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, square) ** exponent)

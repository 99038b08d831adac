"""Similarity of all rows of one set to all rows of another: the block that contrast and retrieval work on."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_same_axis
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.precision import at_least_float32


def cosine_similarity(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Cosine of every row of `a` with every row of `b`.

    `S_ij = n(a_i) . n(b_j)`, where `n = l2_normalize`

    The product is taken at full float32 precision on every device: at a scale of 100 the three digits of a
    bfloat16 pass would move logits by tenths.

    Args:
      a: `[..., A, D]` embeddings, un-normalised.
      b: `[..., B, D]` embeddings, un-normalised.

    Returns:
      `[..., A, B]` float32 in [-1, 1]; 0 where either row is zero.

    Raises:
      ValueError: the widths `D` differ.

    >>> b = jnp.array([[0.0, 1.0], [-5.0, 0.0], [0.0, 0.0]])
    >>> print(cosine_similarity(jnp.array([[2.0, 0.0], [3.0, 4.0]]), b))
    [[ 0.  -1.   0. ]
     [ 0.8 -0.6  0. ]]
    """
    check_same_axis("cosine_similarity", axis=-1, a=a, b=b)
    return inner_products(l2_normalize(at_least_float32(a)), l2_normalize(at_least_float32(b)))


def inner_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner product of every row of `a` with every row of `b`, at full float32 precision on every device.

    Args:
      a: `[..., A, D]`.
      b: `[..., B, D]`.

    Returns:
      `[..., A, B]`.

    >>> print(inner_products(jnp.array([[2.0, 1.0]]), jnp.array([[1.0, 0.0], [1.0, -1.0]])))
    [[2. 1.]]
    """
    return jnp.matmul(a, jnp.swapaxes(b, -1, -2), precision=jax.lax.Precision.HIGHEST)

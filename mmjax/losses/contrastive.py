"""Softmax contrast: each positive pair against all other pairs of the batch.

Every loss here is `log-normaliser - positive logit` over a block of logits `scale * similarity`, so a form
that never holds the whole block has only to merge the log-normalisers of its parts.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_integer, check_rank, check_same_axis, check_same_shape
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity


def similarity_info_nce(similarity: ArrayLike, *, scale: float | jax.Array) -> jax.Array:
    """Symmetric InfoNCE of a given similarity matrix, matched pairs on its diagonal.

    `value_i = 1/2 (logsumexp_j L_ij + logsumexp_j L_ji) - L_ii`, where `L = scale * similarity`

    Args:
      similarity: `[B, B]`, row i and column i belong together; any similarity, used as it is.
      scale: `[]` multiplier of the similarities, positive (inverse temperature).

    Returns:
      `[B]` float32, at least 0; the mean is the usual loss. 0 for B = 1.

    Raises:
      ValueError: `similarity` is not square.

    >>> [f"{value:.3f}" for value in similarity_info_nce(jnp.zeros((2, 2)), scale=1.0)]
    ['0.693', '0.693']

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
      figure 3; mlfoundations/open_clip at 89fb801, `ClipLoss`.
    """
    check_rank("similarity_info_nce", rank=2, similarity=similarity)
    if jnp.shape(similarity)[0] != jnp.shape(similarity)[1]:
        raise ValueError(f"similarity_info_nce: similarity has shape {jnp.shape(similarity)}, expected a square")
    logits = scale * at_least_float32(similarity)
    rows, columns = jax.nn.logsumexp(logits, axis=1), jax.nn.logsumexp(logits, axis=0)
    return 0.5 * (rows + columns) - jnp.diagonal(logits)


def clip_loss(image_embeds: ArrayLike, text_embeds: ArrayLike, *, scale: float | jax.Array) -> jax.Array:
    """CLIP's loss: each image among the texts and each text among the images of the batch.

    `value_i = -1/2 (log softmax_j(S_ij)[i] + log softmax_j(S_ji)[i])`, where
    `S = scale * cosine_similarity(image_embeds, text_embeds)`

    A bias on the logits would cancel, so there is none.

    Args:
      image_embeds: `[B, D]` un-normalised.
      text_embeds: `[B, D]` un-normalised, row i belongs to image i. Either side may be any modality.
      scale: `[]` multiplier of the cosines, positive; CLIP learns its logarithm from log(1/0.07) and clips it
        at log 100.

    Returns:
      `[B]` float32, at least 0; the mean is the usual loss. 0 for B = 1.

    Raises:
      ValueError: the shapes differ or do not have two axes.

    >>> embeds = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> [f"{value:.3f}" for value in clip_loss(embeds, embeds, scale=1.0)]
    ['0.313', '0.313']

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
      figure 3; mlfoundations/open_clip at 89fb801, `ClipLoss`.
    """
    check_rank("clip_loss", rank=2, image_embeds=image_embeds, text_embeds=text_embeds)
    check_same_shape("clip_loss", image_embeds=image_embeds, text_embeds=text_embeds)
    return similarity_info_nce(cosine_similarity(image_embeds, text_embeds), scale=scale)


def info_nce(
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    scale: float | jax.Array,
    positive_index: ArrayLike | None = None,
    ids: ArrayLike | None = None,
) -> jax.Array:
    """InfoNCE in one direction: each query finds its own key among all keys.

    `value_i = logsumexp_j L_ij - L_i,p(i)`, where `L = scale * cosine_similarity(queries, keys)` and p(i) is
    the key of query i

    Gradients reach queries and keys. On one device of many, give it the local queries, the gathered keys and
    `positive_index = arange(B) + B * rank`; both directions averaged over the devices are the mean
    `clip_loss`.

    Args:
      queries: `[B, D]` un-normalised.
      keys: `[N, D]` un-normalised.
      scale: `[]` multiplier of the cosines, positive (inverse temperature).
      positive_index: `[B]` int in [0, N), the key of each query; None is key i for query i.
      ids: `[B]` int, what each row of the batch shows, where the keys are the batch's own (N = B): the other
        keys with the query's id are no negatives and leave the sum. None keeps all.

    Returns:
      `[B]` float32, at least 0; the mean is the usual loss.

    Raises:
      ValueError: shapes disagree, some query has no key of its own, or `ids` came with N != B.
      TypeError: `positive_index` or `ids` is not of integers.

    >>> embeds = jnp.ones((3, 4))
    >>> [f"{value:.3f}" for value in info_nce(embeds[:2], embeds, scale=10.0)]
    ['1.099', '1.099']
    >>> [f"{value:.3f}" for value in info_nce(embeds, embeds, scale=10.0, ids=jnp.array([7, 7, 8]))]
    ['0.693', '0.693', '1.099']

    Reference:
      van den Oord et al., "Representation Learning with Contrastive Predictive Coding", arXiv 1807.03748,
      equation 4; mlfoundations/open_clip at 89fb801, `ClipLoss` (the local loss of one rank).
    """
    check_rank("info_nce", rank=2, queries=queries, keys=keys)
    check_same_axis("info_nce", axis=1, queries=queries, keys=keys)
    logits = scale * cosine_similarity(queries, keys)
    num_queries, num_keys = logits.shape
    if positive_index is None:
        if num_queries > num_keys:
            raise ValueError(f"info_nce: {num_queries} queries, {num_keys} keys; give positive_index, one key a query")
        positive_index = jnp.arange(num_queries)
    positive_index = jnp.asarray(positive_index)
    check_integer("info_nce", positive_index=positive_index)
    check_same_axis("info_nce", axis=0, queries=queries, positive_index=positive_index)
    positive = jnp.take_along_axis(logits, positive_index[:, None], axis=1)[:, 0]
    if ids is not None:
        ids = jnp.asarray(ids)
        check_integer("info_nce", ids=ids)
        check_same_axis("info_nce", axis=0, queries=queries, keys=keys, ids=ids)
        same = (ids[:, None] == ids[None, :]) & (jnp.arange(num_keys)[None, :] != positive_index[:, None])
        logits = jnp.where(same, -jnp.inf, logits)
    return jax.nn.logsumexp(logits, axis=1) - positive

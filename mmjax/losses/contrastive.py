"""Softmax contrast: each positive pair against all other pairs of the batch.

Every loss here is `log-normaliser - positive logit` over logits `scale * similarity`. The dense form holds them all; a
form that never does, in blocks or over devices, merges the log-normalisers of its parts.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_integer, check_rank, check_same_axis, check_same_shape
from mmjax.losses._pairs import PairLoss, Side, layout, reduce_pairs
from mmjax.losses._reductions import SOFTMAX, Logits
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity, inner_products
from mmjax.parallel.collectives import AxisName, first_row


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


def clip_loss(
    image_embeds: ArrayLike,
    text_embeds: ArrayLike,
    *,
    scale: float | jax.Array,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    exchange: str = "ring",
) -> jax.Array:
    """CLIP's loss: each image among the texts and each text among the images of the batch.

    `value_i = -1/2 (log softmax_j(S_ij)[i] + log softmax_j(S_ji)[i])`, where
    `S = scale * cosine_similarity(image_embeds, text_embeds)`

    A bias on the logits would cancel, so there is none. In blocks, S never exists and the memory of value and gradient
    is linear in B.

    Args:
      image_embeds: `[B, D]` un-normalised.
      text_embeds: `[B, D]` un-normalised, row i belongs to image i. Either side may be any modality.
      scale: `[]` multiplier of the cosines, positive; CLIP learns its logarithm from log(1/0.07) and clips it
        at log 100.
      block_size: rows and columns of S held at a time, any number; 0 holds all, None all up to B = 2048, then 1024.
      axis_name: inside `jax.shard_map`, the mesh axis that splits the batch: the B rows are this device's, and are
        contrasted with those of all devices.
      exchange: how devices see each other's texts: "ring" (one device's at a time) or "all_gather".

    Returns:
      `[B]` float32, at least 0; the mean (over all devices) is the usual loss. 0 for B = 1.

    Raises:
      ValueError: the shapes differ or do not have two axes, or a setting is none of the above.

    >>> embeds = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> [f"{value:.3f}" for value in clip_loss(embeds, embeds, scale=1.0)]
    ['0.313', '0.313']

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
      figure 3; mlfoundations/open_clip at 89fb801, `ClipLoss`.
    """
    check_rank("clip_loss", rank=2, image_embeds=image_embeds, text_embeds=text_embeds)
    check_same_shape("clip_loss", image_embeds=image_embeds, text_embeds=text_embeds)
    batch = jnp.shape(image_embeds)[0]
    where = layout("clip_loss", batch, batch, block_size=block_size, axis_name=axis_name, exchange=exchange)
    if where is None:
        return similarity_info_nce(cosine_similarity(image_embeds, text_embeds), scale=scale)
    places = first_row(batch, axis_name) + jnp.arange(batch)
    of_images, of_texts = reduce_pairs(
        PairLoss(_contrast, SOFTMAX, both=True),
        where,
        Side(scale * _unit(image_embeds), (places, None)),
        Side(_unit(text_embeds), (places, None)),
    )
    return 0.5 * (of_images + of_texts)


def info_nce(
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    scale: float | jax.Array,
    positive_index: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    exchange: str = "ring",
) -> jax.Array:
    """InfoNCE in one direction: each query finds its own key among all keys.

    `value_i = logsumexp_j L_ij - L_i,p(i)`, where `L = scale * cosine_similarity(queries, keys)` and p(i) is
    the key of query i

    Gradients reach queries and keys. Both directions averaged are `clip_loss`.

    Args:
      queries: `[B, D]` un-normalised.
      keys: `[N, D]` un-normalised.
      scale: `[]` multiplier of the cosines, positive (inverse temperature).
      positive_index: `[B]` int in [0, N), the key of each query; None is key i for query i. Over devices, the place
        among the keys of all devices, and None is key i of the same device.
      ids: `[B]` int, what each row of the batch shows, where the keys are the batch's own (N = B): the other
        keys with the query's id are no negatives and leave the sum. None keeps all.
      block_size: rows and columns of L held at a time, any number; 0 holds all, None all up to B N = 2048^2, then 1024.
      axis_name: inside `jax.shard_map`, the mesh axis that splits queries and keys: the rows are this device's, and
        are contrasted with the keys of all devices.
      exchange: how devices see each other's keys: "ring" (one device's at a time) or "all_gather".

    Returns:
      `[B]` float32, at least 0; the mean (over all devices) is the usual loss.

    Raises:
      ValueError: shapes disagree, some query has no key of its own, `ids` came with N != B, or a setting is none of
        the above.
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
    num_queries, num_keys = jnp.shape(queries)[0], jnp.shape(keys)[0]
    first_key = first_row(num_keys, axis_name)
    if positive_index is None:
        if num_queries > num_keys:
            raise ValueError(f"info_nce: {num_queries} queries, {num_keys} keys; give positive_index, one key a query")
        positive_index = first_key + jnp.arange(num_queries)
    positive_index = jnp.asarray(positive_index)
    check_integer("info_nce", positive_index=positive_index)
    check_same_axis("info_nce", axis=0, queries=queries, positive_index=positive_index)
    if ids is not None:
        ids = jnp.asarray(ids)
        check_integer("info_nce", ids=ids)
        check_same_axis("info_nce", axis=0, queries=queries, keys=keys, ids=ids)
    where = layout("info_nce", num_queries, num_keys, block_size=block_size, axis_name=axis_name, exchange=exchange)
    if where is not None:
        (of_queries,) = reduce_pairs(
            PairLoss(_contrast, SOFTMAX, both=False),
            where,
            Side(scale * _unit(queries), (positive_index, ids)),
            Side(_unit(keys), (first_key + jnp.arange(num_keys), ids)),
        )
        return of_queries
    logits = scale * cosine_similarity(queries, keys)
    positive = jnp.take_along_axis(logits, positive_index[:, None], axis=1)[:, 0]
    if ids is not None:
        same = (ids[:, None] == ids[None, :]) & (jnp.arange(num_keys)[None, :] != positive_index[:, None])
        logits = jnp.where(same, -jnp.inf, logits)
    return jax.nn.logsumexp(logits, axis=1) - positive


def _contrast(rows: Side, columns: Side) -> Logits:
    """Logits of embeddings whose scale is in the rows; a row's positive is the column in that place."""
    (positive_place, row_ids), (places, column_ids) = rows.given, columns.given
    logits, positive = inner_products(rows.learned, columns.learned), positive_place[:, None] == places
    if row_ids is not None:
        logits = jnp.where((row_ids[:, None] == column_ids) & ~positive, -jnp.inf, logits)
    return Logits(logits, positive)


def _unit(embeds: ArrayLike) -> jax.Array:
    return l2_normalize(at_least_float32(embeds))

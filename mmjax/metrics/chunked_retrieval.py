"""Retrieval over galleries whose matrix of scores does not fit: the same numbers, a block of it at a time."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mmjax._checks import check_choice, check_rank, check_same_axis
from mmjax.metrics.ties import TIES, nan_against_model, tied_rank
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity

_PADDING = -1


def chunked_retrieval_ranks(
    queries: ArrayLike,
    gallery: ArrayLike,
    query_groups: np.typing.ArrayLike,
    gallery_groups: np.typing.ArrayLike,
    *,
    chunk: int = 1024,
    ties: str = "best",
) -> jax.Array:
    """Rank of the best-scored positive of each query, without the `[Q, N]` scores.

    Equals `retrieval_ranks(cosine_similarity(queries, gallery), query_groups[:, None] == gallery_groups)`

    An item answers the queries of its own group, as the five captions of an image do. Memory is `chunk^2`
    beside the embeddings; the gallery is scored twice, for the best positive and for the items before it. A
    host function: call it outside `jit`.

    Args:
      queries: `[Q, D]` embeddings, un-normalised.
      gallery: `[N, D]` embeddings, un-normalised.
      query_groups: `[Q]` group of each query; ids of any integer width, or strings.
      gallery_groups: `[N]` group of each item.
      chunk: rows and columns of a block; need not divide Q or N.
      ties: "best", "worst" or "mean", see `retrieval_ranks`.

    Returns:
      `[Q]` int32, float32 for "mean", from 0; N for a query without a positive.

    Raises:
      ValueError: shapes disagree, a side is empty, `chunk` is below 1 or `ties` is unknown.

    >>> images, captions = np.eye(2), np.array([[1.0, 0.2], [0.2, 1.0], [0.1, 1.0], [1.0, 0.3]])
    >>> print(chunked_retrieval_ranks(captions, images, np.array([0, 1, 1, 1]), np.array([0, 1]), chunk=3))
    [0 0 0 1]
    """
    check_choice("chunked_retrieval_ranks", "ties", ties, TIES)
    _check("chunked_retrieval_ranks", queries, gallery, query_groups, gallery_groups, chunk)
    groups = _dense_ids(query_groups, gallery_groups)
    return _ranks(at_least_float32(queries), at_least_float32(gallery), *groups, chunk=chunk, ties=ties)


def chunked_recall_fraction_at_k(
    queries: ArrayLike,
    gallery: ArrayLike,
    query_groups: np.typing.ArrayLike,
    gallery_groups: np.typing.ArrayLike,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
) -> dict[int, jax.Array]:
    """Positives among the top k over all positives of each query, for several k, without the `[Q, N]` scores.

    Equals `recall_fraction_at_k(cosine_similarity(queries, gallery), query_groups[:, None] == gallery_groups,
    k=k)` for each k

    The "recall fraction"; for the "any hit" R@k of the literature take `recall_at_k` of
    `chunked_retrieval_ranks`. Memory is `chunk * (chunk + max(ks))` beside the embeddings. A host function:
    call it outside `jit`.

    Args:
      queries: `[Q, D]` embeddings, un-normalised.
      gallery: `[N, D]` embeddings, un-normalised.
      query_groups: `[Q]` group of each query; ids of any integer width, or strings.
      gallery_groups: `[N]` group of each item.
      ks: depths, each at least 1.
      chunk: rows and columns of a block; need not divide Q or N.

    Returns:
      For each k of `ks`, `[Q]` float32 in [0, 1]; 0 for a query without a positive.

    Raises:
      ValueError: shapes disagree, a side is empty, or `chunk` is below 1.

    >>> images, captions = np.eye(2), np.array([[1.0, 0.2], [0.2, 1.0], [0.1, 1.0], [0.9, 0.8]])
    >>> groups = np.array([0, 1]), np.array([0, 1, 1, 0])
    >>> recalls = chunked_recall_fraction_at_k(images, captions, *groups, ks=(1, 2), chunk=3)
    >>> print(recalls[1], recalls[2])
    [0.5 0.5] [1. 1.]
    """
    _check("chunked_recall_fraction_at_k", queries, gallery, query_groups, gallery_groups, chunk)
    groups = query_ids, gallery_ids = _dense_ids(query_groups, gallery_groups)
    depth = min(max(ks), len(gallery_ids))
    hits = _top_hits(at_least_float32(queries), at_least_float32(gallery), *groups, chunk=chunk, depth=depth)
    counts = np.bincount(gallery_ids, minlength=query_ids.max() + 1)[query_ids]
    return {k: jnp.sum(hits[:, :k], axis=1) / np.maximum(counts, 1) for k in ks}


@functools.partial(jax.jit, static_argnames=("chunk", "ties"))
def _ranks(
    queries: jax.Array, gallery: jax.Array, query_ids: jax.Array, gallery_ids: jax.Array, *, chunk: int, ties: str
) -> jax.Array:
    fold = functools.partial(_fold, queries, gallery, query_ids, gallery_ids, chunk)
    zero = jnp.zeros(len(queries), jnp.int32)

    def take_best(best, scores, positives, negatives):
        return jnp.maximum(best, jnp.max(jnp.where(positives, scores, -jnp.inf), axis=1))

    def count(state, scores, positives, negatives):
        best, above, level = state
        above += jnp.sum(negatives & (scores > best[:, None]), axis=1, dtype=above.dtype)
        level += jnp.sum(negatives & (scores == best[:, None]), axis=1, dtype=level.dtype)
        return best, above, level

    best = fold(take_best, jnp.full(len(queries), -jnp.inf, queries.dtype))
    _, above, level = fold(count, (best, zero, zero))
    return jnp.where(best > -jnp.inf, tied_rank(above, level, ties=ties), len(gallery))


@functools.partial(jax.jit, static_argnames=("chunk", "depth"))
def _top_hits(
    queries: jax.Array, gallery: jax.Array, query_ids: jax.Array, gallery_ids: jax.Array, *, chunk: int, depth: int
) -> jax.Array:
    """`[Q, depth]` bool: whether the items of each query, best first, are positives."""

    def merge(state, scores, positives, negatives):
        scores = jnp.where(positives | negatives, scores, -jnp.inf)
        # Earlier items stand in front and `top_k` keeps the order of equals: of a tie the lower index wins.
        scores, hits = (jnp.concatenate(parts, axis=1) for parts in zip(state, (scores, positives), strict=True))
        scores, top = jax.lax.top_k(scores, depth)
        return scores, jnp.take_along_axis(hits, top, axis=1)

    shape = (len(queries), depth)
    start = (jnp.full(shape, -jnp.inf, queries.dtype), jnp.zeros(shape, bool))
    return _fold(queries, gallery, query_ids, gallery_ids, chunk, merge, start)[1]


def _fold(
    queries: jax.Array,
    gallery: jax.Array,
    query_ids: jax.Array,
    gallery_ids: jax.Array,
    chunk: int,
    step: Callable[..., Any],
    state: Any,
) -> Any:
    """Folds `step(state, scores, positives, negatives) -> state` over the gallery, for each block of queries.

    The leaves of `state` are `[Q, ...]`, those of the step's state `[rows, ...]`; padding is neither positive
    nor negative.
    """
    rows, columns = min(chunk, len(queries)), min(chunk, len(gallery))
    gallery_blocks = (_blocks(gallery, columns), _blocks(gallery_ids, columns, fill=_PADDING))

    def over_gallery(block):
        state, block_queries, block_ids = block

        def visit(state, items):
            keys, key_ids = items
            positives = block_ids[:, None] == key_ids
            negatives = (key_ids != _PADDING) & ~positives
            scores = nan_against_model(cosine_similarity(block_queries, keys), positives)
            return step(state, scores, positives, negatives), None

        return jax.lax.scan(visit, state, gallery_blocks)[0]

    query_blocks = jax.tree.map(lambda x: _blocks(x, rows), (state, queries, query_ids))
    folded = jax.lax.map(over_gallery, query_blocks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(queries)], folded)


def _blocks(x: jax.Array, size: int, *, fill: int = 0) -> jax.Array:
    """`[M, ...]` as `[ceil(M / size), size, ...]`, padded with `fill`."""
    padding = [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding, constant_values=fill).reshape(-1, size, *x.shape[1:])


def _dense_ids(query_groups: np.typing.ArrayLike, gallery_groups: np.typing.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The groups as int32 from 0: JAX would cut 64-bit ids to 32 bits."""
    query_groups, gallery_groups = np.asarray(query_groups), np.asarray(gallery_groups)
    ids = np.unique(np.concatenate([query_groups, gallery_groups]), return_inverse=True)[1].astype(np.int32)
    return ids[: len(query_groups)], ids[len(query_groups) :]


def _check(
    function: str,
    queries: ArrayLike,
    gallery: ArrayLike,
    query_groups: np.typing.ArrayLike,
    gallery_groups: np.typing.ArrayLike,
    chunk: int,
) -> None:
    check_rank(function, rank=2, queries=queries, gallery=gallery)
    check_same_axis(function, axis=1, queries=queries, gallery=gallery)
    for side, embeds, groups in (("query", queries, query_groups), ("gallery", gallery, gallery_groups)):
        rows, *_ = shape = np.shape(embeds)
        if np.shape(groups) != (rows,) or rows == 0:
            found = f"{side}_groups {np.shape(groups)} for embeddings {shape}"
            raise ValueError(f"{function}: found {found}, expected one group a row and at least one row")
    if chunk < 1:
        raise ValueError(f"{function}: chunk is {chunk}, expected at least 1")

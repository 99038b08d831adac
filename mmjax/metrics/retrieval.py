"""Retrieval from a matrix of scores: ranks, and both published definitions of recall at k."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_choice, check_rank, check_same_shape
from mmjax.metrics.ties import TIES, nan_against_model, tied_rank
from mmjax.ops.precision import at_least_float32


def retrieval_ranks(scores: ArrayLike, positives: ArrayLike, *, ties: str = "best") -> jax.Array:
    """Rank of the best-scored positive of each query, counted from 0.

    With b the best score among the positives: "best" counts the items above b, "worst" the non-positive items
    at b or above, "mean" is the average of the two.

    A collapsed model, all scores equal, thus has rank 0 everywhere under "best": state the rule with the
    number, and report "worst" or "mean" where scores may tie. NaN counts against the model.

    Args:
      scores: `[Q, N]` higher is better.
      positives: `[Q, N]` bool, which items answer the query; several may.
      ties: "best", "worst" or "mean".

    Returns:
      `[Q]` int32, float32 for "mean", in [0, N); N for a query without a positive.

    Raises:
      ValueError: shapes differ or `ties` is unknown.

    >>> scores = jnp.array([[0.9, 0.5, 0.5], [0.1, 0.2, 0.3]])
    >>> positives = jnp.array([[False, True, False], [False, False, True]])
    >>> {ties: retrieval_ranks(scores, positives, ties=ties).tolist() for ties in ("best", "worst", "mean")}
    {'best': [1, 0], 'worst': [2, 0], 'mean': [1.5, 0.0]}

    Reference:
      Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015,
      section 4.1; mlfoundations/open_clip at 89fb801, `get_clip_metrics`.
    """
    scores, positives = at_least_float32(scores), jnp.asarray(positives, bool)
    check_choice("retrieval_ranks", "ties", ties, TIES)
    check_rank("retrieval_ranks", rank=2, scores=scores, positives=positives)
    check_same_shape("retrieval_ranks", scores=scores, positives=positives)
    scores = nan_against_model(scores, positives)
    best = jnp.max(jnp.where(positives, scores, -jnp.inf), axis=1, keepdims=True)
    above = jnp.sum(~positives & (scores > best), axis=1)
    level = jnp.sum(~positives & (scores == best), axis=1)
    return jnp.where(jnp.any(positives, axis=1), tied_rank(above, level, ties=ties), scores.shape[1])


def recall_at_k(ranks: ArrayLike, *, k: int) -> jax.Array:
    """R@k, "any hit": the share of queries with at least one positive among the top k, `mean(ranks < k)`.

    This is the R@k of the image-text literature. With several positives a query it is not recall: one of five
    captions found counts in full; `recall_fraction_at_k` is the other definition.

    Args:
      ranks: `[Q]` from 0, as `retrieval_ranks` gives them.
      k: depth, at least 1.

    Returns:
      `[]` float32 in [0, 1].

    >>> print(recall_at_k(jnp.array([0, 3, 1, 7]), k=2))
    0.5

    Reference:
      Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", CVPR 2015,
      section 4.1; mlfoundations/open_clip at 89fb801, `get_clip_metrics`.
    """
    check_rank("recall_at_k", rank=1, ranks=ranks)
    return jnp.mean(jnp.asarray(ranks) < k, dtype=jnp.float32)


def recall_fraction_at_k(scores: ArrayLike, positives: ArrayLike, *, k: int) -> jax.Array:
    """Recall at k, "recall fraction": the positives among the top k over all positives of the query.

    With five captions an image it is at most 0.2 at k = 1, where `recall_at_k` of the ranks may reach 1. Of
    equal scores the lower index comes first. NaN counts against the model.

    Args:
      scores: `[Q, N]` higher is better.
      positives: `[Q, N]` bool, which items answer the query; several may.
      k: depth, at least 1; beyond N it is N.

    Returns:
      `[Q]` float32 in [0, 1]; 0 for a query without a positive.

    Raises:
      ValueError: shapes differ.

    >>> scores = jnp.array([[0.9, 0.8, 0.1]])
    >>> positives = jnp.array([[True, False, True]])
    >>> ranks = retrieval_ranks(scores, positives)
    >>> print(recall_fraction_at_k(scores, positives, k=1), recall_at_k(ranks, k=1))
    [0.5] 1.0

    Reference:
      Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.4;
      LAION-AI/CLIP_benchmark at 48de38c, `recall_at_k`.
    """
    scores, positives = at_least_float32(scores), jnp.asarray(positives, bool)
    check_rank("recall_fraction_at_k", rank=2, scores=scores, positives=positives)
    check_same_shape("recall_fraction_at_k", scores=scores, positives=positives)
    _, top = jax.lax.top_k(nan_against_model(scores, positives), min(k, scores.shape[1]))
    hits = jnp.sum(jnp.take_along_axis(positives, top, axis=1), axis=1)
    return hits / jnp.maximum(jnp.sum(positives, axis=1), 1)


def retrieval_report(scores_i2t: ArrayLike, scores_t2i: ArrayLike, *, positives: ArrayLike) -> dict[str, jax.Array]:
    """Any-hit recalls of both directions in per cent, and their means.

    `txt_*`: image queries, texts found; `img_*`: text queries, images found. Ties by the "best" rule.

    Args:
      scores_i2t: `[I, T]` scores of texts for each image, higher is better.
      scores_t2i: `[T, I]` scores of images for each text; need not be the transpose (a re-ranked one is not).
      positives: `[I, T]` bool, which texts belong to which image.

    Returns:
      `[]` float32 in [0, 100] under txt_r1, txt_r5, txt_r10, txt_r_mean, img_r1, img_r5, img_r10, img_r_mean
      and r_mean.

    Raises:
      ValueError: shapes disagree.

    >>> report = retrieval_report(jnp.eye(3), jnp.eye(3), positives=jnp.eye(3, dtype=bool))
    >>> print(report["txt_r1"], report["r_mean"])
    100.0 100.0

    Reference:
      Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",
      NeurIPS 2021, section 6; salesforce/ALBEF at b9727e4, `itm_eval`.
    """
    positives = jnp.asarray(positives, bool)
    ranks = {"txt": retrieval_ranks(scores_i2t, positives), "img": retrieval_ranks(scores_t2i, positives.T)}
    report = {}
    for side, side_ranks in ranks.items():
        recalls = {f"{side}_r{k}": 100 * recall_at_k(side_ranks, k=k) for k in (1, 5, 10)}
        report |= recalls | {f"{side}_r_mean": sum(recalls.values()) / 3}
    return report | {"r_mean": (report["txt_r_mean"] + report["img_r_mean"]) / 2}

"""Which retrievals to show: right ones and wrong ones, chosen by rule and not by hand."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmjax import metrics


class Hit(NamedTuple):
    """An item that a query found: its number, its rank from 1, its score, and whether it belongs to the query."""

    item: int
    rank: int
    score: float
    right: bool


class Retrieval(NamedTuple):
    """A query and what it found.

    Attributes:
      query: its number.
      hits: the first items, best first.
      missed: the best of its own items, where none is among the first.
    """

    query: int
    hits: tuple[Hit, ...]
    missed: Hit | None


class Gallery(NamedTuple):
    """Retrievals in one direction.

    Attributes:
      right: examples whose first item is their own, from the narrowest lead to the widest.
      wrong: examples whose first item is not, from the nearest miss to the farthest.
      found: queries whose first item is their own.
      listed: queries with one of their own among the items shown.
      queries, items: how many there are of each.
      depth: items shown.
    """

    right: tuple[Retrieval, ...]
    wrong: tuple[Retrieval, ...]
    found: int
    listed: int
    queries: int
    items: int
    depth: int


def gallery(scores: np.ndarray, positives: np.ndarray, *, examples: int = 6, depth: int = 5) -> Gallery:
    """Examples at even distances among all right and among all wrong retrievals, the extremes included.

    An item that scores the same as the query's own stands before it.

    Args:
      scores: `[Q, N]`, finite.
      positives: `[Q, N]` bool, the items that belong to each query, one at least.
      examples: how many right and how many wrong ones at most.
      depth: items shown for each.

    >>> shown = gallery(np.array([[0.9, 0.1], [0.8, 0.2]]), np.eye(2, dtype=bool))
    >>> [r.query for r in shown.right], [r.query for r in shown.wrong], shown.found
    ([0], [1], 1)
    >>> shown.wrong[0].hits[1]
    Hit(item=1, rank=2, score=0.2, right=True)
    """
    ranks = np.asarray(metrics.retrieval_ranks(scores, positives, ties="worst"))
    best = np.where(positives, scores, -np.inf).max(axis=1)
    rival = np.where(positives, -np.inf, scores).max(axis=1)
    lead = best - rival
    right = np.flatnonzero(ranks == 0)
    wrong = np.flatnonzero(ranks > 0)
    right = right[np.argsort(lead[right], kind="stable")]
    wrong = wrong[np.lexsort((-lead[wrong], ranks[wrong]))]
    retrievals = [
        tuple(_retrieval(query, scores[query], positives[query], depth) for query in _spread(queries, examples))
        for queries in (right, wrong)
    ]
    return Gallery(
        *retrievals,
        found=len(right),
        listed=int((ranks < depth).sum()),
        queries=len(scores),
        items=scores.shape[1],
        depth=min(depth, scores.shape[1]),
    )


def _spread(queries: np.ndarray, count: int) -> Sequence[int]:
    chosen = np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int)
    return queries[chosen].tolist()


def _retrieval(query: int, scores: np.ndarray, positives: np.ndarray, depth: int) -> Retrieval:
    order = np.lexsort((positives, -scores))
    found = [
        Hit(item, rank, float(scores[item]), bool(positives[item])) for rank, item in enumerate(order.tolist(), start=1)
    ]
    hits = tuple(found[:depth])
    missed = None if any(hit.right for hit in hits) else next(hit for hit in found if hit.right)
    return Retrieval(query, hits, missed)

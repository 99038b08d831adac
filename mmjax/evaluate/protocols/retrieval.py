"""Image-text retrieval in both directions, with every caption of every picture.

Two definitions of recall are in use, and both are reported: `R@k`, the share of queries with any of their positives
among the first k (the one papers print), and `recall_fraction@k`, the share of a query's positives that are among the
first k. The second is left out where every query has one positive: there they are equal.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax import metrics
from mmjax.config import ConfigError
from mmjax.data.sources import build_source
from mmjax.evaluate.embed import Encoders
from mmjax.evaluate.pairs import embed_pairs
from mmjax.method import Params


def build(
    encoders: Encoders,
    *,
    data: Mapping[str, Any],
    max_records: int | None = None,
    group: str | None = None,
    ks: Sequence[int] = (1, 5, 10),
    ties: str = "worst",
    chunk: int = 4096,
) -> Callable[[Params], Iterator[tuple[str, float]]]:
    """Retrieval on a source.

    Args:
      encoders: of the model.
      data: `name` and settings of the source.
      max_records: how many of its records are the gallery; None takes all.
      group: field whose equal values make pictures and captions each other's positives, such as a concept drawn by
        several vendors; None makes a caption the positive of its own picture only.
      ks: ranks at which recall is reported.
      ties: rule for items that score the same as the positive: "worst" counts them before it, so that a model which
        maps everything to one point scores 0.
      chunk: queries and items scored at a time; the square of all pairs is never built.

    Returns:
      A function of the parameters that yields names and values.
    """
    source = build_source(**data)
    count = len(source) if max_records is None else min(max_records, len(source))
    if count == 0:
        raise ConfigError(f"retrieval: the source {dict(data)} has no records")

    def run(params: Params) -> Iterator[tuple[str, float]]:
        pairs = embed_pairs(encoders, params, source, max_records=count, group=group)
        directions = {
            "image_to_text": (pairs.images, pairs.texts, pairs.image_groups, pairs.text_groups),
            "text_to_image": (pairs.texts, pairs.images, pairs.text_groups, pairs.image_groups),
        }
        for direction, sides in directions.items():
            ranks = metrics.chunked_retrieval_ranks(*sides, chunk=chunk, ties=ties)
            for k in ks:
                yield f"retrieval/{direction}/R@{k}", float(metrics.recall_at_k(ranks, k=k))
            if _several_positives(*sides[2:]):
                fractions = metrics.chunked_recall_fraction_at_k(*sides, ks=ks, chunk=chunk)
                for k in ks:
                    yield f"retrieval/{direction}/recall_fraction@{k}", float(np.mean(fractions[k]))
            yield f"retrieval/{direction}/median_rank", float(np.floor(np.median(ranks)) + 1)
            yield f"retrieval/{direction}/queries", len(sides[0])
            yield f"retrieval/{direction}/gallery", len(sides[1])
        yield "retrieval/modality_gap", float(metrics.modality_gap(pairs.images, pairs.texts)["gap"])

    return run


def _several_positives(queries: np.ndarray, gallery: np.ndarray) -> bool:
    groups, counts = np.unique(gallery, return_counts=True)
    return bool(np.isin(queries, groups[counts > 1]).any())

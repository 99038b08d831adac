"""The matrix of cosines between pictures and captions, as a picture whose colours follow the page."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from mmjax.evaluate.report.thumbnails import png_uri


class Heatmap(NamedTuple):
    """A matrix of scores as a picture, one pixel an entry.

    Attributes:
      uri: PNG; its opacity runs from 0 at the lowest score to full at the highest. A mask for any colour.
      low, high: the lowest and the highest score.
      own, other: mean score of the diagonal, and of the rest; None where there is no rest.
      row_hits, column_hits: rows and columns whose diagonal entry is above all others.
    """

    uri: str
    low: float
    high: float
    own: float
    other: float | None
    row_hits: int
    column_hits: int


def similarity_heatmap(scores: np.ndarray) -> Heatmap:
    """The picture of a square matrix and what stands on its diagonal.

    Args:
      scores: `[N, N]`, finite; row i and column i belong together.

    >>> heatmap = similarity_heatmap(np.array([[0.9, 0.1], [0.5, 0.3]]))
    >>> heatmap.row_hits, heatmap.column_hits, round(heatmap.own, 2), round(heatmap.other, 2)
    (1, 2, 0.6, 0.3)
    """
    low, high = float(scores.min()), float(scores.max())
    opacity = np.rint(255 * (scores - low) / max(high - low, 1e-12)).astype(np.uint8)
    picture = np.stack([np.zeros_like(opacity), opacity], axis=-1)
    own = np.diagonal(scores)
    rest = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores)
    others = rest[np.isfinite(rest)]
    return Heatmap(
        uri=png_uri(Image.fromarray(picture, "LA")),
        low=low,
        high=high,
        own=float(own.mean()),
        other=float(others.mean()) if others.size else None,
        row_hits=int((own > rest.max(axis=1)).sum()),
        column_hits=int((own > rest.max(axis=0)).sum()),
    )


def chain(embeds: np.ndarray) -> np.ndarray:
    """An order in which alike rows stand together: from the first row, always on to the nearest one left.

    Args:
      embeds: `[N, D]`, of unit length.

    Returns:
      `[N]` int, a permutation.

    >>> chain(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])).tolist()
    [0, 2, 1]
    """
    scores = embeds @ embeds.T
    order, left = [0], list(range(1, len(embeds)))
    while left:
        order.append(left.pop(int(np.argmax(scores[order[-1], left]))))
    return np.asarray(order)

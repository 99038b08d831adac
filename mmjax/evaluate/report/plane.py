"""Pictures and captions in one plane: the two directions in which the embeddings of both spread most."""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from mmjax.evaluate.report.figures import MUTED, SERIES, draw

_WIDTH = 720


class Projection(NamedTuple):
    """Two modalities in their joint principal plane.

    Attributes:
      a, b: `[N, 2]` and `[M, 2]`.
      explained: share of the variance along the first and the second direction.
    """

    a: np.ndarray
    b: np.ndarray
    explained: tuple[float, float]


def joint_projection(a: np.ndarray, b: np.ndarray) -> Projection:
    """Principal component analysis of two modalities taken together.

    Args:
      a: `[N, D]` embeddings of one modality, of unit length.
      b: `[M, D]` embeddings of the other.

    Returns:
      Coordinates along the two leading directions; each points to where its largest component is positive.

    >>> joint_projection(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])).a.tolist()
    [[1.0, 0.0]]
    """
    both = np.concatenate([a, b]).astype(np.float64)
    both -= both.mean(axis=0)
    _, sigma, directions = np.linalg.svd(both, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1, keepdims=True)
    directions *= np.sign(np.take_along_axis(directions, largest, axis=1))
    variance = np.square(sigma) / max(np.square(sigma).sum(), 1e-12)
    flat = np.zeros((len(both), 2))
    flat[:, : len(directions)] = both @ directions.T
    first, second = (*variance, 0.0, 0.0)[:2]
    return Projection(flat[: len(a)], flat[len(a) :], (float(first), float(second)))


def plane(a: np.ndarray, b: np.ndarray) -> Markup:
    """Dots of one modality, diamonds of the other, and a line between those that belong together.

    Args:
      a: `[L, 2]` coordinates of pictures.
      b: `[L, 2]` coordinates of captions; row i belongs to row i of `a`.
    """

    extent = np.ptp(np.concatenate([a, b]), axis=0)
    height = round(float(np.clip(_WIDTH * extent[1] / max(extent[0], 1e-12), 240, 540)))

    def paint(axes: Axes) -> None:
        axes.add_collection(LineCollection(list(np.stack([a, b], axis=1)), colors=MUTED, linewidths=0.5, alpha=0.4))
        axes.scatter(*a.T, s=18, color=SERIES[0], marker="o", alpha=0.85, linewidths=0)
        axes.scatter(*b.T, s=15, color=SERIES[1], marker="D", alpha=0.85, linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_axis_off()

    label = "Embeddings of pictures (dots) and captions (diamonds) in their joint principal plane, pairs joined"
    return draw(paint, label=label, size=(_WIDTH, height), margins=(8, 8, 8, 8))

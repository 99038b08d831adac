"""The outlines of the shapes, and their anti-aliased stamps."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]

_SAMPLES = 5


def _star(x: np.ndarray, y: np.ndarray, *, inner: float = 0.45) -> np.ndarray:
    # Folded into one of its ten equal sectors, a five-pointed star is the half-plane below one edge, which
    # runs from the tip (1, 0) to the notch at radius `inner` and angle 36 degrees.
    sector = np.pi / 5
    angle = np.abs((np.arctan2(x, y) + sector) % (2 * sector) - sector)
    radius = np.hypot(x, y)
    rise, run = inner * np.sin(sector), 1 - inner * np.cos(sector)
    return radius * (np.cos(angle) * rise + np.sin(angle) * run) <= rise


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = 1.14 * x, 1.12 * y + 0.12
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


# Whether the point (x, y) lies inside; the shape fills the square [-1, 1] x [-1, 1], y upwards.
OUTLINES: Mapping[str, Outline] = {
    "circle": lambda x, y: np.hypot(x, y) <= 0.98,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.88,
    "triangle": lambda x, y: (y >= -0.9) & (np.abs(x) <= (1 - y) / 1.9),
    "diamond": lambda x, y: np.abs(x) / 0.75 + np.abs(y) <= 1,
    "cross": lambda x, y: np.minimum(np.abs(x), np.abs(y)) <= 0.3,
    "star": _star,
    "ring": lambda x, y: (np.hypot(x, y) <= 0.98) & (np.hypot(x, y) >= 0.55),
    "heart": _heart,
}


class Stamp(NamedTuple):
    """One shape at one diameter, ready to paste.

    Attributes:
      paint: `[d, 3d]` uint16, weight of the shape's colour in 1/256, once for each channel.
      ground: `[d, 3d]` uint16, `256 - paint`.
      inside: `[d, d]` bool, where the shape covers half of the pixel or more.
    """

    paint: np.ndarray
    ground: np.ndarray
    inside: np.ndarray


def make_stamp(shape: str, diameter: int) -> Stamp:
    """The stamp of a shape: coverage of each pixel, from 5 x 5 points in it.

    Args:
      shape: a key of `OUTLINES`.
      diameter: side of the stamp, pixels.

    Returns:
      The stamp.

    >>> make_stamp("diamond", 5).inside.astype(int)
    array([[0, 0, 1, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0],
           [0, 0, 1, 0, 0]])
    """
    points = (np.arange(diameter * _SAMPLES) + 0.5) / (diameter * _SAMPLES) * 2 - 1
    inside = OUTLINES[shape](points[None, :], -points[:, None])
    coverage = inside.reshape(diameter, _SAMPLES, diameter, _SAMPLES).mean((1, 3))
    paint = np.repeat(np.rint(coverage * 256), 3, axis=1).astype(np.uint16)
    return Stamp(paint, 256 - paint, coverage >= 0.5)

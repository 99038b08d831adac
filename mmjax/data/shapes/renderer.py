"""Placements to pixels, in integer arithmetic: the same picture on every machine."""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from mmjax.data.shapes.layout import Placement
from mmjax.data.shapes.outlines import Stamp, make_stamp
from mmjax.data.shapes.vocabulary import BACKGROUNDS, COLOURS

_DEPTH = attrgetter("depth")


class Renderer:
    """Paints pictures; keeps the stamps that it has made.

    Args:
      image_size: side of the picture, pixels.
    """

    def __init__(self, image_size: int):
        self.image_size = image_size
        self._stamps: dict[tuple[str, int], Stamp] = {}

    def image(self, background: str, placements: Sequence[Placement], bits: int) -> np.ndarray:
        """The picture, uint8 `[H, W, 3]`.

        Args:
          background: colour of the field.
          placements: at most four objects, inside the picture.
          bits: 64 random bits: the field and each object get a shade of their colour, 12 bits each.
        """
        size = self.image_size
        colour = _shade(BACKGROUNDS[background], bits)
        canvas = np.frombuffer(bytearray(colour) * (size * size), np.uint8).reshape(size, 3 * size)
        # From back to front; rows of 3 W bytes, because NumPy is slow on an innermost axis of three.
        for thing, x, y, diameter, _ in sorted(placements, key=_DEPTH, reverse=True):
            bits >>= 12
            stamp = self._stamp(thing.shape, diameter)
            row = np.frombuffer(_shade(COLOURS[thing.colour], bits) * diameter, np.uint8)
            patch = canvas[y : y + diameter, 3 * x : 3 * (x + diameter)]
            blend = patch * stamp.ground
            blend += row * stamp.paint
            blend >>= 8
            patch[...] = blend
        return canvas.reshape(size, size, 3)

    def segmentation(self, placements: Sequence[Placement]) -> np.ndarray:
        """Which object each pixel shows, uint8 `[H, W]`: 0 for the field, `1 + i` for `placements[i]`."""
        segments = np.zeros((self.image_size, self.image_size), np.uint8)
        order = sorted(range(len(placements)), key=lambda i: placements[i].depth, reverse=True)
        for i in order:
            thing, x, y, diameter, _ = placements[i]
            segments[y : y + diameter, x : x + diameter][self._stamp(thing.shape, diameter).inside] = i + 1
        return segments

    def _stamp(self, shape: str, diameter: int) -> Stamp:
        stamp = self._stamps.get((shape, diameter))
        if stamp is None:
            stamp = self._stamps[shape, diameter] = make_stamp(shape, diameter)
        return stamp


def _shade(colour: tuple[int, int, int], bits: int) -> bytes:
    # Steps of 2 from -15 to 15 in each channel.
    red, green, blue = colour
    return bytes(
        (
            red - 15 + 2 * (bits & 15),
            green - 15 + 2 * (bits >> 4 & 15),
            blue - 15 + 2 * (bits >> 8 & 15),
        )
    )

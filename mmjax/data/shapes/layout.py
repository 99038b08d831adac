"""Where the objects of a description stand in the picture."""

from typing import Any, NamedTuple

from mmjax.data.shapes.descriptions import Description
from mmjax.data.shapes.vocabulary import SIZES, Thing

_NUMBERS = {"two": 2, "three": 3, "four": 4}


class Placement(NamedTuple):
    """An object in the picture; pixel `i` covers `[i, i + 1)`, y points down.

    Attributes:
      thing: what it is.
      x, y: left and upper edge of its box, pixels.
      diameter: side of its box, pixels.
      depth: 0 for the nearest; an object hides those of greater depth.
    """

    thing: Thing
    x: int
    y: int
    diameter: int
    depth: int

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.diameter / 2, self.y + self.diameter / 2


class Layout:
    """Draws the places of the objects.

    Objects lie inside the picture. The centres of a pair are more than twice as far apart along the axis of
    the relation as across it, so that the other axis never competes. The objects of a count take cells of a
    2 x 2 grid.

    Args:
      image_size: side of the picture, pixels.
      overlap: how much of the smaller object of a pair may lie over or under the other: a share of its
        diameter along the axis, 0 to 0.5.
    """

    def __init__(self, image_size: int, *, overlap: float = 0.0):
        self.image_size = image_size
        self.overlap = overlap
        self.diameters = {size: [round(image_size * share) for share in shares] for size, shares in SIZES.items()}

    def __call__(self, description: Description, bits: int) -> tuple[Placement, ...]:
        """The objects, in the order of the caption; `bits` are 64 random bits."""
        if description.is_pair:
            return self._pair(description, bits)
        if description.form == "one":
            return self._single(description.things[0], bits)
        return self._count(description.things[0], _NUMBERS[description.form], bits)

    def _single(self, thing: Thing, bits: int) -> tuple[Placement, ...]:
        diameter = self.diameters[thing.size][bits % 3]
        room = self.image_size - diameter + 1
        rest, x = divmod(bits // 3, room)
        return (Placement(thing, x, rest % room, diameter, 0),)

    def _count(self, thing: Thing, number: int, bits: int) -> tuple[Placement, ...]:
        diameters = self.diameters[thing.size]
        cell = self.image_size // 2
        cells = [0, 1, 2, 3]
        placements = []
        for depth in range(number):
            bits, choice = divmod(bits, len(cells))
            bits, level = divmod(bits, 3)
            row, column = divmod(cells.pop(choice), 2)
            room = cell - diameters[level] + 1
            bits, x = divmod(bits, room)
            bits, y = divmod(bits, room)
            placements.append(Placement(thing, column * cell + x, row * cell + y, diameters[level], depth))
        return tuple(placements)

    def _pair(self, description: Description, bits: int) -> tuple[Placement, ...]:
        form, _, things = description
        turned = form in ("right of", "below")
        near, far = things[::-1] if turned else things
        bits, near_level = divmod(bits, 3)
        bits, far_level = divmod(bits, 3)
        near_side, far_side = self.diameters[near.size][near_level], self.diameters[far.size][far_level]

        bits, hidden = divmod(bits, int(self.overlap * min(near_side, far_side)) + 1)
        bits, gap = divmod(bits, self.image_size - near_side - far_side + 1)
        gap -= hidden
        bits, near_along = divmod(bits, self.image_size - near_side - far_side - gap + 1)
        far_along = near_along + near_side + gap

        bits, near_across = divmod(bits, self.image_size - near_side + 1)
        # The whole numbers that keep twice the distance across the axis below the distance along it, centre to centre.
        lowest = max(near_across + (near_side - 3 * far_side - 2 * gap) // 4 + 1, 0)
        highest = min(near_across + (3 * near_side - far_side + 2 * gap - 1) // 4, self.image_size - far_side)
        bits, offset = divmod(bits, highest - lowest + 1)

        corners = (near_along, near_across), (far_along, lowest + offset)
        if form in ("above", "below"):
            corners = [(x, y) for y, x in corners]
        depth = bits % 2
        pair = (
            Placement(near, *corners[0], near_side, depth),
            Placement(far, *corners[1], far_side, 1 - depth),
        )
        return pair[::-1] if turned else pair


def scene(description: Description, placements: tuple[Placement, ...]) -> dict[str, Any]:
    """The scene as plain values.

    Returns:
      `form` and `background` as in `Description`, and `objects` in the order of the caption: dicts of `size`,
      `colour`, `shape`, `centre` (x, y), `box` (left, top, right, bottom), both in pixels, and `depth`.
    """
    objects = [
        {
            "size": thing.size,
            "colour": thing.colour,
            "shape": thing.shape,
            "centre": (x + diameter / 2, y + diameter / 2),
            "box": (x, y, x + diameter, y + diameter),
            "depth": depth,
        }
        for thing, x, y, diameter, depth in placements
    ]
    return {"form": description.form, "background": description.background, "objects": objects}

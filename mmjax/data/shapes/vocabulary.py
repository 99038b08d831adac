"""The words of the captions, and what each word looks like."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

from mmjax.data.shapes.outlines import OUTLINES
from mmjax.paths import suggestion

# Base colours keep 15 levels from 0 and 255, so that the renderer's shades never clip.
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (240, 130, 15),
    "yellow": (238, 222, 40),
    "green": (35, 165, 50),
    "cyan": (35, 205, 220),
    "blue": (35, 75, 225),
    "purple": (140, 45, 185),
    "pink": (240, 140, 200),
}
BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "black": (16, 16, 16),
    "white": (239, 239, 239),
    "grey": (125, 125, 125),
    "brown": (105, 65, 35),
    "beige": (222, 205, 165),
    "navy": (20, 30, 90),
}
# Diameters as shares of the picture; three a size.
SIZES: Mapping[str, tuple[float, float, float]] = {
    "small": (0.27, 0.29, 0.31),
    "large": (0.43, 0.45, 0.47),
}
SHAPES: tuple[str, ...] = tuple(OUTLINES)


class Thing(NamedTuple):
    """What one object is, in words."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"

    @property
    def plural(self) -> str:
        return f"{self}{'es' if self.shape.endswith('s') else 's'}"


@dataclass(frozen=True)
class Vocabulary:
    """The words that one source uses.

    >>> Vocabulary(shapes=("cross",), colours=("red",)).things[0].plural
    'small red crosses'
    """

    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)
    sizes: tuple[str, ...] = tuple(SIZES)

    @cached_property
    def things(self) -> tuple[Thing, ...]:
        """Every size, colour and shape together."""
        return tuple(Thing(*words) for words in product(self.sizes, self.colours, self.shapes))


def known(setting: str, names: str | Iterable[str], allowed: Iterable[str]) -> tuple[str, ...]:
    """`names` as a tuple, after checking them.

    Raises:
      ValueError: no name, a name twice, or one that is not among `allowed`.

    >>> known("colours", ["red", "blue"], COLOURS)
    ('red', 'blue')
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    allowed = tuple(allowed)
    for name in names:
        if name not in allowed:
            raise ValueError(f"shapes: {setting} has {name!r}, {suggestion(name, allowed)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"shapes: {setting} is {names}, expected at least one name and none twice")
    return names

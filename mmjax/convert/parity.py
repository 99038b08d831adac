"""Whether two implementations agree: a row for each tensor, a limit for each row, a report of all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmjax.convert.rules import ConversionError

TOLERANCE = 1e-4


class Row(NamedTuple):
    """One comparison.

    Attributes:
      name: what was compared.
      shape: of both arrays.
      difference: largest absolute difference; infinite where the shapes differ, NaN where a value is no number.
      magnitude: largest absolute value of the other implementation.
      limit: what `difference` may be.
    """

    name: str
    shape: tuple[int, ...]
    difference: float
    magnitude: float
    limit: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is a number within the limit."""
        return self.difference <= self.limit

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}: differs by {self.difference:.2e}, at most {self.limit:.0e} is allowed"


class Report(NamedTuple):
    """All comparisons of one conversion.

    Attributes:
      title: what was compared with what.
      rows: the comparisons.
      facts: what a reader needs beside them: versions, classes, inputs.
    """

    title: str
    rows: tuple[Row, ...]
    facts: Mapping[str, str]

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that do not agree."""
        return tuple(row for row in self.rows if not row.agrees)

    def check(self) -> None:
        """Raises ConversionError when a row does not agree; the message has each of them."""
        if self.failures:
            raise ConversionError(f"{self.title}: no parity", [str(row) for row in self.failures])

    def to_markdown(self) -> str:
        """The report as text with a table."""
        lines = [f"# {self.title}", "", *(f"- {name}: {value}" for name, value in self.facts.items()), ""]
        lines += [f"{len(self.rows) - len(self.failures)} of {len(self.rows)} comparisons agree.", ""]
        lines += ["| compared | shape | largest difference | largest value | limit | |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            numbers = f"{row.difference:.2e} | {row.magnitude:.2e} | {row.limit:.0e}"
            shape = " x ".join(map(str, row.shape)) or "scalar"
            lines.append(f"| {row.name} | {shape} | {numbers} | {'ok' if row.agrees else 'DIFFERS'} |")
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """The report as JSON."""
        content = {
            "title": self.title,
            "agrees": not self.failures,
            "facts": dict(self.facts),
            "rows": [row._asdict() | {"agrees": row.agrees} for row in self.rows],
        }
        return json.dumps(content, indent=2) + "\n"

    def write(self, folder: str | Path) -> None:
        """Writes `parity.json` and `parity.md` into `folder`."""
        Path(folder, "parity.json").write_text(self.to_json(), encoding="utf-8")
        Path(folder, "parity.md").write_text(self.to_markdown(), encoding="utf-8")


def compare(
    name: str, ours: np.ndarray, theirs: np.ndarray, *, relative: bool = False, limit: float = TOLERANCE
) -> Row:
    """Compares two arrays.

    Args:
      name: what they are.
      ours: array.
      theirs: array of the reference, expected to have the same shape.
      relative: whether `limit` counts in units of the largest value of `theirs`, where that is above 1. Hidden states
        of a deep stack grow to where float32 cannot resolve an absolute limit.
      limit: what the difference may be.

    >>> compare("logits", np.array([1.0, 2.0]), np.array([1.0, 2.5])).agrees
    False
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    magnitude = float(np.max(np.abs(theirs), initial=0.0))
    same = ours.shape == theirs.shape
    difference = float(np.max(np.abs(ours - theirs), initial=0.0)) if same else math.inf
    return Row(name, ours.shape, difference, magnitude, limit * max(1.0, magnitude) if relative else limit)


def fixed_images(size: int) -> list[np.ndarray]:
    """Pictures to compare preprocessing on: uint8 RGB, square and oblong, larger and smaller than `size`.

    >>> [image.shape for image in fixed_images(32)]
    [(32, 32, 3), (49, 67, 3), (69, 31, 3), (17, 16, 3)]
    """
    rng = np.random.default_rng(0)
    shapes = [(size, size), (3 * size // 2 + 1, 2 * size + 3), (2 * size + 5, size - 1), (size // 2 + 1, size // 2)]
    images = []
    for height, width in shapes:
        rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
        smooth = np.stack([rows + 0 * columns, columns + 0 * rows, 0.5 + 0.5 * np.sin(9 * rows * columns)], axis=-1)
        noisy = 0.7 * smooth + 0.3 * rng.random((height, width, 3))
        images.append((255 * noisy).astype(np.uint8))
    return images


FIXED_TEXTS = (
    "a small red circle left of a large blue square on a grey field",
    "Two CATS, one Dog; 3.14 (and a half)!",
    "it's the artist's 2nd  spaced\tout\nline",
    "un café à l'été, Straße, naïve coöperation",
    "e\u0301 is not composed",  # A letter and an accent, which some tokenizers compose first.
    "東京の猫 и собака 🐈‍⬛",
    "",
    "a very long text that goes on and on " * 40,
)

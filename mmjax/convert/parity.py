"""Whether two implementations agree: a row for each tensor, a limit for each row, a report of all."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmjax.convert.errors import ConversionError

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

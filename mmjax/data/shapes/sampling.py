"""Which description a record shows."""

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np

from mmjax.data.shapes.hashing import mix


class IndependentRows:
    """Each record draws a kind by weight, then one of its descriptions: without end, with repetitions.

    Args:
      groups: the rows of each kind, none empty.
      weights: share of each kind; they need not sum to 1.
    """

    def __init__(self, groups: Mapping[str, np.ndarray], weights: Mapping[str, float]):
        shares = np.cumsum([weights[kind] for kind in groups])
        self._bounds = np.rint(shares / shares[-1] * 2**32).tolist()
        self._groups = list(groups.values())

    def __call__(self, index: int, bits: int) -> np.void:
        """The row of the record at `index`, whose random bits are `bits`."""
        high, low = divmod(bits, 2**32)
        rows = self._groups[bisect_right(self._bounds, high)]
        return rows[low % len(rows)]


class DistinctRows:
    """No two records show the same description: a weighted draw without replacement.

    A kind that runs out leaves its place to the others. Fewer records are the first ones of more.

    Args:
      groups: the rows of each kind, none empty.
      weights: share of each kind; they need not sum to 1.
      number: how many rows to draw.
      seed: decides which, and in what order.

    Reference: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006), algorithm A: the
    largest `u^(1/w)` win, `u` uniform.
    """

    def __init__(self, groups: Mapping[str, np.ndarray], weights: Mapping[str, float], *, number: int, seed: int):
        rows = np.concatenate(list(groups.values()))
        weight = np.concatenate([np.full(len(g), weights[kind] / len(g)) for kind, g in groups.items()])
        uniform = (mix(np.arange(len(rows), dtype=np.uint64) + mix(seed)) + 0.5) / 2.0**64
        keys = -np.log(uniform) / weight
        self._rows = rows[np.argsort(keys, kind="stable")[:number]]

    def __call__(self, index: int, bits: int) -> np.void:
        """The row of the record at `index`."""
        return self._rows[index]

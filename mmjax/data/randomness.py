"""Random numbers by what they are for, never by the order of calls: hashes of (seed, epoch, index, name)."""

import hashlib
from typing import NamedTuple

import numpy as np


class Draws(NamedTuple):
    """The random numbers of one example in one epoch, by name.

    Two names give independent numbers, one name gives the same numbers wherever it is asked for: adding a
    transform moves no other transform, and two views of an image that share a name share its draws. The
    numbers are a fixed hash, the same on all platforms and versions.

    Attributes:
      seed: of the pipeline.
      epoch: passes over the source before this one.
      index: position of the example in the source.

    >>> draws = Draws(seed=0, epoch=0, index=7)
    >>> draws.uniform("flip", 2).round(3)
    array([0.046, 0.972])
    >>> (draws.uniform("flip", 3)[:2] == draws.uniform("flip", 2)).all()
    np.True_
    """

    seed: int
    epoch: int
    index: int

    def uniform(self, name: str, count: int) -> np.ndarray:
        """The first `count` numbers of the stream `name`, `[count]` float64 in [0, 1)."""
        key = f"{self.seed}/{self.epoch}/{self.index}/{name}".encode()
        words = np.frombuffer(hashlib.shake_256(key).digest(8 * count), "<u8")
        return (words >> 11) * 2.0**-53


def epoch_seed(seed: int, epoch: int) -> int:
    """A 32-bit seed for one epoch, unrelated to that of the next epoch or of the next seed."""
    return int.from_bytes(hashlib.shake_256(f"{seed}/{epoch}".encode()).digest(4), "little")

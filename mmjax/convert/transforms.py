"""Changes of layout between a parameter and a foreign tensor, each with its inverse."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Transform(NamedTuple):
    """A change of layout and its inverse.

    Attributes:
      export: parameter -> foreign tensor.
      load: foreign tensor -> parameter.
    """

    export: Callable[[np.ndarray], np.ndarray]
    load: Callable[[np.ndarray], np.ndarray]


IDENTITY = Transform(lambda x: x, lambda x: x)
DENSE = Transform(np.transpose, np.transpose)  # Kernel [in, out] <-> Linear weight [out, in].
CONV = Transform(lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0))  # HWIO <-> OIHW.


def leading(axes: int = 1) -> Transform:
    """The tensor has `axes` further axes of length 1 in front, as class tokens `[1, 1, D]` and scales `[1]` have.

    >>> leading(2).export(np.zeros(3)).shape, leading().load(np.zeros((1, 5, 3))).shape
    ((1, 1, 3), (5, 3))
    """
    return Transform(lambda x: x[(None,) * axes], lambda x: x.reshape(x.shape[axes:]))


def patch_dense(patch_size: int) -> Transform:
    """Patch kernel `[p, p, C, D]` <-> weight `[D, p * p * C]` of a Linear over flattened patches.

    >>> patch_dense(4).export(np.zeros((4, 4, 3, 8))).shape
    (8, 48)
    """
    return Transform(
        lambda x: x.reshape(-1, x.shape[-1]).T, lambda x: x.T.reshape(patch_size, patch_size, -1, x.shape[0])
    )

"""What the tensors of a plain ViT say of its settings, whatever their names."""

import math
import re
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from mmjax.ops.positions import resize_positions


def count_layers(names: Iterable[str], prefix: str) -> int:
    """Number of layers `{prefix}.0...`, `{prefix}.1...` among names of tensors.

    >>> count_layers(["blocks.0.norm1.bias", "blocks.10.norm1.bias", "norm.bias"], "blocks")
    11
    """
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def usual_heads(width: int) -> int:
    """Heads of the published ViTs of a width: of 64 up to ViT-L, then 16 however wide.

    >>> usual_heads(768), usual_heads(1280)
    (12, 16)
    """
    return min(width // 64, 16)


def width_ratio(hidden: int, width: int) -> float:
    """The ratio that `int(width * ratio)`, as PyTorch's towers compute it, turns back into `hidden`.

    >>> all(int(width * width_ratio(h, width)) == h for width in range(1, 99) for h in range(1, 400))
    True
    """
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def grid_side(rows: int) -> int | None:
    """Side of the square grid that a number of patches fills.

    >>> grid_side(49), grid_side(50)
    (7, None)
    """
    side = math.isqrt(max(rows, 0))
    return side if side and side * side == rows else None


def missing_tensors(tensors: Mapping[str, np.ndarray], names: Iterable[str]) -> list[str]:
    """A problem for each tensor without which there are no settings."""
    return [f"missing tensor {name!r}" for name in names if name not in tensors]


def uncovered_pixels(image_size: int, patch_size: int) -> list[str]:
    """A problem where the patches leave pixels over, which PyTorch's convolution cuts off.

    >>> uncovered_pixels(384, 14)
    ['pictures of 384 pixels have 6 left over beside patches of 14, which VisionTransformer does not cut off']
    """
    if not (left := image_size % patch_size):
        return []
    return [
        f"pictures of {image_size} pixels have {left} left over beside patches of {patch_size}, "
        "which VisionTransformer does not cut off"
    ]


def resample(table: np.ndarray, *, side: int, num_prefix: int) -> np.ndarray:
    """A table of positions `[num_prefix + N, D]` for `side` by `side` patches; as it is where N is no square."""
    table = np.asarray(table, np.float32)
    found = grid_side(len(table) - num_prefix)
    if found is None or found == side:
        return table
    source, target = (found, found), (side, side)
    return np.asarray(resize_positions(jnp.asarray(table), source=source, target=target, num_prefix=num_prefix))

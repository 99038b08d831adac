"""Positions of the patches of a grid: the fixed sine-cosine table, and learned tables carried to another grid."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax._checks import check_choice, check_rank


def sincos_position_2d(height: int, width: int, features: int, *, temperature: float = 10000.0) -> jax.Array:
    """Fixed sine-cosine positions of a grid.

    Token n has a = n // height, b = n % height and the row `[sin(a w), cos(a w), sin(b w), cos(b w)]`, where
    `w_i = temperature ** (-i / (features / 4))`. On a square grid a is the row and b the column of the patch; on an
    oblong one this is the authors' formula, and `sincos_position_2d(columns, rows, features)` has a = row, b = column.

    Args:
      height, width: size of the grid in patches.
      features: width of the table, divisible by 4.
      temperature: the longest wavelength over 2 pi.

    Returns:
      `[height * width, features]` float32.

    Raises:
      ValueError: `features` is not divisible by 4.

    >>> sincos_position_2d(2, 2, 4)[1].round(3).tolist()
    [0.0, 1.0, 0.8410000205039978, 0.5400000214576721]

    Reference:
      Bachmann et al., "MultiMAE: Multi-modal Multi-task Masked Autoencoders", ECCV 2022;
      EPFL-VILAB/MultiMAE at 66910f5.
    """
    if features % 4:
        raise ValueError(f"sincos_position_2d: features is {features}, expected a multiple of 4")
    frequencies = temperature ** (-np.arange(features // 4) / (features // 4))
    first, second = np.divmod(np.arange(height * width), height)
    parts = [fn(axis[:, None] * frequencies) for axis in (first, second) for fn in (np.sin, np.cos)]
    return jnp.asarray(np.concatenate(parts, axis=1), jnp.float32)


RESIZE_METHODS = ("bicubic_antialias", "bicubic")


def resize_positions(
    table: jax.Array,
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    num_prefix: int = 0,
    method: str = "bicubic_antialias",
) -> jax.Array:
    """A table of patch positions resampled to another grid; the prefix rows (class token) are kept as they are.

    Args:
      table: `[num_prefix + h * w, D]`, patches row by row.
      source: `(h, w)` of the table.
      target: `(h, w)` of the result. Equal to `source`: the table itself.
      num_prefix: rows in front that belong to no patch.
      method: "bicubic_antialias" = cubic convolution with a = -1/2 that is widened to the coarser grid, as open_clip,
        timm and DINOv2 with registers resize; "bicubic" = with a = -3/4 at the four nearest points, as HF's DINOv2 and
        ViT do. Both are PyTorch's `interpolate(mode="bicubic")`, with and without `antialias`.

    Returns:
      `[num_prefix + target_h * target_w, D]`, the dtype of `table`; resampled in float32.

    Raises:
      ValueError: the table does not hold `num_prefix + h * w` rows, or there is no such method.

    >>> resize_positions(jnp.ones((5, 3)), source=(2, 2), target=(3, 4), num_prefix=1).shape
    (13, 3)

    Reference:
      Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics, Speech, and
      Signal Processing, 1981.
    """
    check_rank("resize_positions", rank=2, table=table)
    check_choice("resize_positions", "method", method, RESIZE_METHODS)
    rows, features = table.shape
    if rows != num_prefix + source[0] * source[1]:
        raise ValueError(
            f"resize_positions: table has {rows} rows, expected {num_prefix} + {source[0]} * {source[1]} "
            f"for num_prefix and the source grid"
        )
    if tuple(source) == tuple(target):
        return table
    grid = table[num_prefix:].astype(jnp.float32).reshape(*source, features)
    if method == "bicubic":
        down, across = (_bicubic_weights(*sides) for sides in zip(source, target, strict=True))
        grid = jnp.einsum("ih,jw,hwd->ijd", down, across, grid, precision="highest")
    else:
        grid = jax.image.resize(grid, (*target, features), "cubic")
    return jnp.concatenate([table[:num_prefix], grid.reshape(-1, features).astype(table.dtype)])


def _bicubic_weights(source: int, target: int, *, a: float = -0.75) -> np.ndarray:
    """Weights `[target, source]` of the four nearest points, those beyond the edge being the edge itself."""
    rows = np.arange(target)
    centre = (rows + 0.5) * source / target - 0.5
    weights = np.zeros((target, source), np.float32)
    for offset in range(-1, 3):
        point = np.floor(centre).astype(int) + offset
        x = np.abs(centre - point)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        np.add.at(weights, (rows, np.clip(point, 0, source - 1)), np.where(x <= 1, near, far))
    return weights

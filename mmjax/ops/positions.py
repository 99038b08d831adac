"""Positions of the patches of a grid: the fixed sine-cosine table, and learned tables carried to another grid."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax._checks import check_rank


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


def resize_positions(
    table: jax.Array, *, source: tuple[int, int], target: tuple[int, int], num_prefix: int = 0, method: str = "cubic"
) -> jax.Array:
    """A table of patch positions resampled to another grid; the prefix rows (class token) are kept as they are.

    Args:
      table: `[num_prefix + h * w, D]`, patches row by row.
      source: `(h, w)` of the table.
      target: `(h, w)` of the result. Equal to `source`: the table itself.
      num_prefix: rows in front that belong to no patch.
      method: of `jax.image.resize`, antialiased. "cubic" is PyTorch's antialiased bicubic, as open_clip resizes.

    Returns:
      `[num_prefix + target_h * target_w, D]`, the dtype of `table`; resampled in float32.

    Raises:
      ValueError: the table does not hold `num_prefix + h * w` rows.

    >>> resize_positions(jnp.ones((5, 3)), source=(2, 2), target=(3, 4), num_prefix=1).shape
    (13, 3)
    """
    check_rank("resize_positions", rank=2, table=table)
    rows, features = table.shape
    if rows != num_prefix + source[0] * source[1]:
        raise ValueError(
            f"resize_positions: table has {rows} rows, expected {num_prefix} + {source[0]} * {source[1]} "
            f"for num_prefix and the source grid"
        )
    if tuple(source) == tuple(target):
        return table
    grid = table[num_prefix:].astype(jnp.float32).reshape(*source, features)
    grid = jax.image.resize(grid, (*target, features), method)
    return jnp.concatenate([table[:num_prefix], grid.reshape(-1, features).astype(table.dtype)])

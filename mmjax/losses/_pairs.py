"""Losses over all pairs of rows and columns, of which only a tile of pairs exists at a time.

A contrast makes a matrix of pairs to keep one number a row and one a column. Forward, each tile of that matrix is
reduced to stats, which merge into the numbers. Backward, it is made again: once the merged stats are known, so is the
gradient of each entry by itself, and is multiplied into the gradients of rows and columns at once. That is one product
of matrices more than the dense form has, and memory linear in rows and columns.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmjax._checks import check_choice
from mmjax.losses._tiles import Block, over_tiles
from mmjax.parallel.collectives import EXCHANGES, AxisName, visit_all

# Chosen automatically: dense up to 2048 rows and columns of plain logits (16 MiB), then tiles of 1024 by 1024, which
# stay in the cache of a CPU and fill an accelerator.
DENSE_NUMBERS = 2048**2
TILE_NUMBERS = 1024**2

Stats = tuple[jax.Array, ...]


class Side(NamedTuple):
    """Rows, or columns: trees of arrays with one first axis; only `learned` has a gradient."""

    learned: Any
    given: Any = None


class Reduction(NamedTuple):
    """How the pairs of each row, or of each column, become one number.

    Attributes:
      empty: the stats of no pairs, a number each.
      part: `(tile, axis) -> stats`, each `[n]`, of the pairs of a tile along an axis.
      merge: `(stats, stats) -> stats`.
      value: `stats -> [n]`.
      share: `(tile, stats, axis) -> [n]`; given the stats of all pairs, its derivative by the tile is that of `value`.
    """

    empty: tuple[float, ...]
    part: Callable[[Any, int], Stats]
    merge: Callable[[Stats, Stats], Stats]
    value: Callable[[Stats], jax.Array]
    share: Callable[[Any, Stats, int], jax.Array]


class PairLoss(NamedTuple):
    """`tile(rows, columns)` makes pairs, `reduction` numbers of the rows, and of the columns if `both`."""

    tile: Callable[[Side, Side], Any]
    reduction: Reduction
    both: bool


class Layout(NamedTuple):
    """Where pairs are made: in tiles of `block` rows and columns (0: in one), on the devices of a mesh axis."""

    block: int
    axis_name: AxisName | None
    exchange: str


def layout(
    function: str,
    rows: int,
    columns: int,
    *,
    block_size: int | None,
    axis_name: AxisName | None,
    exchange: str = "ring",
    pair_size: int = 1,
) -> Layout | None:
    """What the keywords of a loss mean; None is its dense form, on one device.

    Args:
      function: name of the loss, for errors.
      rows: number of rows of this device.
      columns: number of columns of this device.
      block_size: rows and columns of a tile; 0 is all, None chooses by how many numbers the pairs hold.
      axis_name: mesh axis, or axes, over which rows and columns are split.
      exchange: how devices see each other's columns.
      pair_size: numbers that a pair holds.
    """
    check_choice(function, "exchange", exchange, EXCHANGES)
    if axis_name is not None and exchange == "all_gather":
        columns *= lax.axis_size(axis_name)
    if block_size is None:
        dense = rows * columns * pair_size <= DENSE_NUMBERS
        block_size = 0 if dense else max(1, math.isqrt(TILE_NUMBERS // pair_size))
    if block_size < 0:
        raise ValueError(f"{function}: block_size is {block_size}, expected rows, 0 (all of them) or None (automatic)")
    return Layout(block_size, axis_name, exchange) if block_size or axis_name is not None else None


def for_each(rows: jax.Array, number: float | jax.Array) -> jax.Array:
    """`number` once a row, varying over devices as the rows do: inside `jax.shard_map` its gradient is then summed over
    devices at the end, not in every tile."""
    return number + jnp.zeros_like(jnp.reshape(rows, (len(rows), -1))[:, 0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def reduce_pairs(loss: PairLoss, where: Layout, rows: Side, columns: Side) -> tuple[jax.Array, ...]:
    """The numbers of the rows, and of the columns if there are both."""
    return _forward(loss, where, rows, columns)[0]


def _forward(loss: PairLoss, where: Layout, rows: Side, columns: Side) -> tuple[tuple[jax.Array, ...], Any]:
    reduction = loss.reduction

    def visit(row_stats: Stats, columns: Side) -> tuple[Stats, tuple[Stats, ...]]:
        def one_tile(i: Block, j: Block, stats: Any) -> Any:
            row_stats, column_stats = stats
            tile = loss.tile(i.of(rows), j.of(columns))
            return (
                i.update(row_stats, lambda found: reduction.merge(found, reduction.part(tile, 1))),
                tuple(j.update(s, lambda found: reduction.merge(found, reduction.part(tile, 0))) for s in column_stats),
            )

        return over_tiles(one_tile, (row_stats, empty(columns)), _length(rows), _length(columns), where.block)

    def empty(side: Side) -> tuple[Stats, ...]:
        """For the columns: of the one reduction that there is, or of none."""
        return (_empty(reduction, side),) if loss.both else ()

    def merge(stats: tuple[Stats, ...], others: tuple[Stats, ...]) -> tuple[Stats, ...]:
        return tuple(map(reduction.merge, stats, others))

    row_stats, column_stats = visit_all(
        visit,
        _empty(reduction, rows),
        columns,
        empty(columns),
        merge=merge,
        axis_name=where.axis_name,
        exchange=where.exchange,
    )
    return tuple(map(reduction.value, (row_stats, *column_stats))), (rows, columns, row_stats, column_stats)


def _backward(loss: PairLoss, where: Layout, residuals: Any, cotangents: tuple[jax.Array, ...]) -> tuple[Side, Side]:
    rows, columns, row_stats, column_stats = residuals
    row_cotangent, *column_cotangents = cotangents
    share = loss.reduction.share

    def visit(row_gradient: Any, visitor: Any) -> tuple[Any, Any]:
        def one_tile(i: Block, j: Block, gradients: Any) -> Any:
            here, here_stats, here_cotangent = i.of((rows, row_stats, row_cotangent))
            there, there_stats, there_cotangents = j.of(visitor)

            def shares(a: Any, b: Any) -> tuple[jax.Array, ...]:
                tile = loss.tile(here._replace(learned=a), there._replace(learned=b))
                return share(tile, here_stats, 1), *(share(tile, stats, 0) for stats in there_stats)

            _, pull_back = jax.vjp(shares, here.learned, there.learned)
            parts = pull_back((here_cotangent, *there_cotangents))
            return tuple(
                block.update(gradient, functools.partial(_add, part))
                for block, gradient, part in zip((i, j), gradients, parts, strict=True)
            )

        zero = jax.tree.map(jnp.zeros_like, visitor[0].learned)
        return over_tiles(one_tile, (row_gradient, zero), _length(rows), _length(visitor), where.block)

    row_gradient, column_gradient = visit_all(
        visit,
        jax.tree.map(jnp.zeros_like, rows.learned),
        (columns, column_stats, tuple(column_cotangents)),
        jax.tree.map(jnp.zeros_like, columns.learned),
        merge=_add,
        axis_name=where.axis_name,
        exchange=where.exchange,
    )
    return Side(row_gradient), Side(column_gradient)


reduce_pairs.defvjp(_forward, _backward)


def _empty(reduction: Reduction, side: Side) -> Stats:
    rows = jax.tree.leaves(side.learned)[0]
    return tuple(for_each(rows, number) for number in reduction.empty)


def _length(tree: Any) -> int:
    return len(jax.tree.leaves(tree)[0])


def _add(tree: Any, other: Any) -> Any:
    return jax.tree.map(jnp.add, tree, other)

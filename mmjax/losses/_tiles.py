"""Loops over the tiles of a matrix whose rows and columns are those of two trees of arrays."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax


class Block(NamedTuple):
    """A run of rows, `size` from `start` on."""

    start: int | jax.Array
    size: int

    def of(self, tree: Any) -> Any:
        """These rows of every array."""
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, self.start, self.size), tree)

    def update(self, tree: Any, change: Callable[[Any], Any]) -> Any:
        """The tree with `change` made to these rows."""
        write = lambda x, new: lax.dynamic_update_slice_in_dim(x, new, self.start, axis=0)  # noqa: E731
        return jax.tree.map(write, tree, change(self.of(tree)))


def over_tiles(one_tile: Callable[[Block, Block, Any], Any], carry: Any, rows: int, columns: int, block: int) -> Any:
    """`carry = one_tile(rows, columns, carry)` for all tiles of `block` rows and columns; block 0 makes one tile."""

    def one_row(i: Block, carry: Any) -> Any:
        return _over_blocks(functools.partial(one_tile, i), carry, columns, block)

    return _over_blocks(one_row, carry, rows, block)


def _over_blocks(one_block: Callable[[Block, Any], Any], carry: Any, length: int, block: int) -> Any:
    """Whole blocks in a loop, then the rest, so that nothing is padded."""
    whole, rest = divmod(length, block) if block else (0, length)
    if whole:
        carry = lax.fori_loop(0, whole, lambda k, carry: one_block(Block(k * block, block), carry), carry)
    return one_block(Block(whole * block, rest), carry) if rest else carry

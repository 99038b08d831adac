"""How each device of a mesh axis gets to see the rows of all others, inside `jax.shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

AxisName = str | tuple[str, ...]
EXCHANGES = ("ring", "all_gather")


def first_row(rows: int, axis_name: AxisName | None) -> int | jax.Array:
    """The place in the whole batch of this device's first row, where every device has `rows`; 0 without an axis."""
    return 0 if axis_name is None else rows * lax.axis_index(axis_name)


def visit_all(
    visit: Callable[[Any, Any], tuple[Any, Any]],
    host: Any,
    visitor: Any,
    luggage: Any,
    *,
    merge: Callable[[Any, Any], Any],
    axis_name: AxisName | None,
    exchange: str = "ring",
) -> tuple[Any, Any]:
    """Shows every device's visitor to every device, and brings home what it was given on the way.

    `visit(host, visitor) -> (host, gift)` updates what this device gathers from all visitors, and makes something for
    the visitor's owner.

    "ring": visitors go from neighbour to neighbour and their gifts follow, merged on the way. A device holds one
    visitor besides its own rows, however many devices there are, and computes while the next one arrives.
    "all_gather": all visitors come at once, as one; their gifts are sent home and merged there. Fewer, larger
    messages, and the memory of all visitors. Both move as many bytes a device as all visitors and their gifts have.

    Args:
      visit: as above; a gift has a row for each row of the visitor.
      host: a tree of arrays, what this device has gathered before the first visit.
      visitor: a tree of arrays `[b, ...]`, this device's rows.
      luggage: a tree of arrays `[b, ...]`, the gift of nobody: what `merge` leaves others unchanged with.
      merge: `(gift, gift) -> gift`, in any order.
      axis_name: the mesh axis, or axes, of the devices; None for a device alone, which is visited by itself.
      exchange: "ring" or "all_gather".

    Returns:
      `host` after all visits, and the merged gifts for this device's own rows.
    """
    if axis_name is None:
        return visit(host, visitor)
    size = lax.axis_size(axis_name)
    if exchange == "all_gather":
        host, gifts = visit(host, jax.tree.map(lambda x: lax.all_gather(x, axis_name, tiled=True), visitor))
        sent = jax.tree.map(lambda x: lax.all_to_all(jnp.reshape(x, (size, -1, *x.shape[1:])), axis_name, 0, 0), gifts)
        pick = lambda i: jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), sent)  # noqa: E731
        return host, lax.fori_loop(1, size, lambda i, gift: merge(gift, pick(i)), pick(0))

    def shift(tree: Any) -> Any:
        steps = [(device, (device - 1) % size) for device in range(size)]
        return jax.tree.map(lambda x: lax.ppermute(x, axis_name, steps), tree)

    def step(_: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        host, visitor, luggage = state
        # Neither waits for the visit, so both travel while it lasts: the luggage is one visit behind its owner.
        following, luggage = shift(visitor), shift(luggage)
        host, gift = visit(host, visitor)
        return host, following, merge(luggage, gift)

    host, _, luggage = lax.fori_loop(0, size, step, (host, visitor, luggage))
    return host, shift(luggage)

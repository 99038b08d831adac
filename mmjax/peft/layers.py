"""The layers of an encoder, for adapters that have one table of parameters for all of them."""

import re
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.paths import suggestion, unflatten
from mmjax.peft.adapter import Params

_BLOCK = re.compile(r"block_(\d+)")


def node_at(name: str, base: Params, path: str) -> Any:
    """The subtree of the model's parameters at a path.

    Raises:
      ValueError: there is none; the message lists what is near.
    """
    node: Any = base
    for part in path.split("/") if path else ():
        if part not in node:
            raise ValueError(f"{name}: the model has no {path!r}: {suggestion(part, node)}")
        node = node[part]
    return node


def blocks_of(name: str, base: Params, encoder: str) -> list[str]:
    """The paths of an encoder's blocks in order: `["encoder/blocks"]` where they are scanned.

    Raises:
      ValueError: there is no encoder there, or it has no blocks.
    """
    node = node_at(name, base, encoder)
    numbers = sorted(int(found[1]) for child in node if (found := _BLOCK.fullmatch(child)))
    names = ["blocks"] if "blocks" in node else [f"block_{number}" for number in numbers]
    if not names:
        raise ValueError(f"{name}: {encoder!r} has neither block_0, ... nor blocks: {suggestion('block_0', node)}")
    return [f"{encoder}/{child}" if encoder else child for child in names]


def num_layers(name: str, base: Params, encoder: str) -> int:
    """The number of an encoder's layers, unrolled or scanned."""
    paths = blocks_of(name, base, encoder)
    if not paths[0].endswith("blocks"):
        return len(paths)
    return jax.tree.leaves(node_at(name, base, paths[0]))[0].shape[0]


def place_in_layers(name: str, base: Params, encoder: str, values: Mapping[str, jax.Array]) -> dict[str, Any]:
    """A tree with the row of each layer where its block is.

    Args:
      name: of the adapter, for errors.
      base: the model's parameters.
      encoder: path of the encoder.
      values: path below a block -> `[L, ...]`.
    """
    paths = blocks_of(name, base, encoder)
    if paths[0].endswith("blocks"):
        return unflatten({f"{paths[0]}/{leaf}": value for leaf, value in values.items()})
    return unflatten({f"{path}/{leaf}": value[i] for i, path in enumerate(paths) for leaf, value in values.items()})

"""Parameters of unrolled layers to those of scanned layers, and back."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_BLOCK = re.compile(r"block_(\d+)")


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Every group `block_0, ..., block_{L-1}` of a tree as one `blocks` whose leaves have a leading axis L.

    Args:
      params: tree of parameters (or gradients, moments, ...) of unrolled layers.

    Returns:
      The tree for `scan=True`; other leaves are untouched.

    Raises:
      ValueError: a group lacks a layer or its layers differ in structure.

    >>> stack_layers({"block_0": {"w": jnp.zeros(3)}, "block_1": {"w": jnp.ones(3)}})["blocks"]["w"].shape
    (2, 3)
    """
    layers = {int(found[1]): name for name in params if (found := _BLOCK.fullmatch(name))}
    rest = {
        name: stack_layers(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if name not in layers.values()
    }
    if not layers:
        return rest
    if sorted(layers) != list(range(len(layers))):
        raise ValueError(f"stack_layers: found layers {sorted(layers)}, expected 0 to {len(layers) - 1} without a gap")
    trees = [params[layers[i]] for i in range(len(layers))]
    return rest | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)}


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `stack_layers`.

    Args:
      params: tree of parameters of scanned layers.

    Returns:
      The tree for `scan=False`; other leaves are untouched.

    >>> sorted(unstack_layers({"blocks": {"w": jnp.zeros((2, 3))}}))
    ['block_0', 'block_1']
    """
    tree: dict[str, Any] = {}
    for name, value in params.items():
        if name == "blocks":
            depth = jax.tree.leaves(value)[0].shape[0]
            tree |= {f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(depth)}
        else:
            tree[name] = unstack_layers(value) if isinstance(value, Mapping) else value
    return tree

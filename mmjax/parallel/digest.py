"""What tells a tree of parameters from others."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmjax import paths


def params_hash(params: Mapping[str, Any]) -> str:
    """A digest of paths, shapes, dtypes and values of all leaves, in any order; all processes must call it.

    >>> tree = {"a": np.zeros(2, np.float32), "b": np.ones(3, np.float32)}
    >>> params_hash(tree) == params_hash(dict(reversed(tree.items())))
    True
    >>> params_hash(tree) == params_hash(tree | {"a": np.zeros((2, 1), np.float32)})
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in sorted(paths.flatten(params).items()):
        array = _whole(leaf)
        digest.update(f"{path} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _whole(leaf: Any) -> np.ndarray:
    """A leaf on this host, also where each process holds a part of it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)

"""Where an edit acts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Call:
    """The call of a module.

    Attributes:
      path: the module's path, names joined by "/".
      module: the module, bound: `call.module.variables` are its own, in a stack those of one layer.
      args, kwargs: what it was called with.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    _find_layer: Callable[[], jax.Array | None] = dataclasses.field(repr=False)

    @property
    def layer(self) -> jax.Array | None:
        """Index of the layer in a stack (`nn.scan`, `nn.vmap`), int32 (), traced; None outside.

        In stacks of stacks the inner layers count on: of a stack `[G, K]`, layer `[g, k]` has the index `g K + k`.
        """
        return self._find_layer()

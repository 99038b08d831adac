"""Where an edit or a branch acts."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import linen as nn


class _Run(Protocol):
    def find_layer(self) -> jax.Array | None: ...

    def call_branch(self, module: nn.Module, params: Any, inputs: tuple[Any, ...], call: "Call") -> Any: ...


@dataclasses.dataclass(frozen=True)
class Call:
    """The call of a module.

    Attributes:
      path: the module's path, names joined by "/".
      module: the module, bound: `call.module.variables` are its own, in a stack those of one layer.
      args, kwargs: what it was called with.
      children: what it has called so far, by path from here, in order; of a module called again, the last call.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    children: Mapping[str, "Call"] = dataclasses.field(repr=False)
    _run: _Run = dataclasses.field(repr=False)

    @property
    def input(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    @property
    def layer(self) -> jax.Array | None:
        """Index of the layer in a stack (`nn.scan`, `nn.vmap`), int32 (), traced; None outside.

        In stacks of stacks the inner layers count on: of a stack `[G, K]`, layer `[g, k]` has the index `g K + k`.
        """
        return self._run.find_layer()

    def apply(self, module: nn.Module, params: Any, *inputs: Any) -> Any:
        """What another module makes of `inputs`; its values are at the addresses `<path>/adapter/...`."""
        return self._run.call_branch(module, params, inputs, self)

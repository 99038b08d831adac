"""The nesting of JAX traces inside one run, and how values leave each."""

from collections.abc import Mapping
from typing import Any

from flax.core.scope import Scope

from mmjax.intercept.scopes import COLLECTION


class Level:
    """The calls under one JAX trace.

    Attributes:
      trace: the trace.
      exit: root scope of the lifted transformation that made the trace; None for the run's own trace, and for
        those of plain JAX transformations.
      outermost: whether no module's call is around the transformation.
      branch: place of the branch that made it, see `Run.call_branch`; () for those of the model itself.
      site: where it is: number of the call from outside, and path of `exit`.
      values: what has been kept under each name, in the order of the calls.
    """

    def __init__(
        self,
        trace: Any,
        *,
        exit: Scope | None = None,
        outermost: bool = False,
        number: int = 0,
        branch: tuple[str, ...] = (),
    ):
        self.trace = trace
        self.exit = exit
        self.outermost = outermost
        self.branch = branch
        self.site = "/".join((str(number), *(exit.path if exit else ())))
        self.values: dict[str, tuple[Any, ...]] = {}

    @property
    def carries(self) -> bool:
        """Whether values can leave through `exit`."""
        return self.exit is not None and not self.outermost and self.exit.is_mutable_collection(COLLECTION)

    @property
    def obstacle(self) -> str:
        """What made the trace, and why no value leaves it."""
        if self.exit is None:
            return "a transformation of plain JAX; use the lifted one, such as nn.remat for jax.checkpoint"
        name = "/".join(self.exit.debug_path)
        if self.outermost:
            return f"{name}, which no module calls; call it from a module's method"
        return (
            f"{name}, which does not carry the collection {COLLECTION!r}; nn.scan needs "
            f"variable_axes={{..., {COLLECTION!r}: 0}}, nn.remat carries it unless `variables` leaves it out"
        )

    def add(self, values: Mapping[str, tuple[Any, ...]]) -> None:
        """Keeps more values."""
        for name, more in values.items():
            self.values[name] = (*self.values.get(name, ()), *more)

    def carry_out(self, variable: str) -> tuple[str, ...]:
        """Leaves the values in a variable of `exit` for the transformation to publish; returns its path."""
        assert self.exit is not None
        # It may hold values of earlier calls in the same body, or of the same stack called before.
        self.values, new = dict(self.exit.get_variable(COLLECTION, variable, {})), self.values
        self.add(new)
        self.exit.put_variable(COLLECTION, variable, self.values)
        return self.exit.path

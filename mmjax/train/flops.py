"""Floating point operations of matrix products, counted in a traced program."""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def count_flops(jaxpr: core.ClosedJaxpr) -> int:
    """Floating point operations of the matrix products and convolutions of a program, a multiplication and an addition
    two.

    Counted is what the program says: rematerialised products count again, those of a scan in every turn, of a
    conditional the larger branch, in `jax.shard_map` those of all devices. A `while` loop counts as one turn. Whatever
    XLA may leave out or repeat, and all else than products, is not counted.

    Args:
      jaxpr: such as `jax.jit(f).trace(...).jaxpr`.

    >>> import jax
    >>> x = jax.ShapeDtypeStruct((4, 8), "float32")
    >>> count_flops(jax.jit(lambda x: x @ x.T).trace(x).jaxpr)
    256
    """
    return sum(_flops(equation) for equation in jaxpr.jaxpr.eqns)


def _flops(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracting, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracting)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    inner = [sum(map(_flops, jaxpr.eqns)) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inner)
    times = params["length"] if name == "scan" else 1
    if name == "shard_map":
        axes = params[
            "newly_manual_axes" if "newly_manual_axes" in params else "manual_axes"
        ]  # the name before jax 0.10
        times = math.prod(params["mesh"].shape[axis] for axis in axes)
    return times * sum(inner)


def _jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part

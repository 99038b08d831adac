"""Reading values inside a model."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mmjax.intercept.call import Call
from mmjax.intercept.patterns import match_addresses, matches_address, methods
from mmjax.intercept.run import Run


def tap(apply: Callable[..., Any], patterns: str | Sequence[str]) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """`apply` that also returns values from inside.

    A value has an address: the path of a module, names joined by "/", is what the module returns, `path:in` its
    first argument, `path:method` what another method returns. Of a module called several times the values are at
    `path`, `path#1`, `path#2`... In a stack of layers (`nn.scan`) a path stands for all layers, and the value has
    their axis in front.

    Gradients flow through the values. The result may be jitted, differentiated, mapped, edited and tapped again.

    Args:
      apply: a function that calls Linen modules, `model.apply` or a closure over it; itself not jitted or mapped.
      patterns: globs of addresses, or one of them.

    Returns:
      A function of the same arguments that returns `(output, {address: value})`.

    Raises:
      NoMatchError: at the call, if a pattern matches no module that was called; the message lists the nearest paths.
      ValueError: a pattern asks for all arguments; or, at the call, a value is inside a transformation that does not
        let it out; the message names the fix.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = nn.Sequential([nn.Dense(3), nn.Dense(2)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> output, values = jax.jit(tap(model.apply, "layers_*"))(variables, jnp.ones((1, 4)))
    >>> {address: value.shape for address, value in values.items()}
    {'layers_0': (1, 3), 'layers_1': (1, 2)}
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in patterns:
        if pattern.endswith(":args"):
            raise ValueError(
                f"tap: {pattern!r} asks for all arguments, which need not be arrays; tap ':in', or edit them"
            )

    def visit(run: Run, address: str, value: Any, call: Call) -> Any:
        if any(matches_address(address, pattern) for pattern in patterns):
            run.keep(address, value)
        return value

    @functools.wraps(apply)
    def tapped(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        run = Run(visit, methods=methods(patterns), writable=True)
        output = run(apply, args, kwargs)
        match_addresses(run.visited, patterns, absent=run.absent)
        numbered = ((address, i, value) for address, values in run.kept.items() for i, value in enumerate(values))
        return output, {f"{address}#{i}" if i else address: value for address, i, value in numbered}

    return tapped

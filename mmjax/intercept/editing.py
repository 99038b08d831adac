"""Replacing values inside a model."""

from collections.abc import Callable, Mapping
from typing import Any

from mmjax.intercept.call import Call
from mmjax.intercept.patterns import match_addresses, matches_address
from mmjax.intercept.replacing import replacing
from mmjax.intercept.run import Run


def edit(apply: Callable[..., Any], edits: Mapping[str, Callable[[Any, Call], Any]]) -> Callable[..., Any]:
    """`apply` with values replaced inside.

    `fn(value, call)` returns what takes the place of `value`, at each address (see `tap`) that its pattern matches;
    patterns that match the same address act in their order. `call` says where: `call.path`, `call.args`,
    `call.module`, and in a stack of layers (`nn.scan`), where one path stands for all, `call.layer`, a traced index:
    `lambda value, call: jnp.where(call.layer == 3, 0.0, value)`. An edit that asks for the layer in a stack has
    `apply` traced once more, to learn how deep the stack is.

    The result may be jitted, differentiated, mapped, tapped and edited again: the inner edit acts before the outer one.

    Args:
      apply: a function that calls Linen modules, `model.apply` or a closure over it; itself not jitted or mapped.
      edits: pattern of addresses -> `fn`.

    Returns:
      A function of the same arguments that returns what `apply` returns.

    Raises:
      NoMatchError: at the call, if a pattern matches no module that was called; the message lists the nearest paths.
      ValueError: at the call, if `apply` is transformed, or a stack cannot tell the layer; the message names the fix.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = nn.Sequential([nn.Dense(3), nn.Dense(2, use_bias=False)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> edit(model.apply, {"layers_0": lambda value, call: jnp.zeros_like(value)})(variables, jnp.ones((1, 4)))
    Array([[0., 0.]], dtype=float32)
    """

    def visit(run: Run, address: str, value: Any, call: Call) -> Any:
        for pattern, fn in edits.items():
            if matches_address(address, pattern):
                value = fn(value, call)
        return value

    def check(run: Run) -> None:
        match_addresses(run.visited, tuple(edits), absent=run.absent)

    return replacing(apply, visit, patterns=edits, check=check)

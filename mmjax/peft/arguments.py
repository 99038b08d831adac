"""Arguments of a module by their names, for branches at the port `args`."""

import inspect
from typing import Any

from mmjax.intercept import Call


def arguments_of(call: Call) -> dict[str, Any]:
    """What a module is called with, by the names of its parameters; defaults are not among it."""
    return {name: value for name, value in _bound(call).arguments.items() if name != "self"}


def replace_arguments(call: Call, **changes: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`(args, kwargs)` of the call, with others in place of those named."""
    bound = _bound(call)
    bound.arguments.update(changes)
    return bound.args[1:], bound.kwargs


def _bound(call: Call) -> inspect.BoundArguments:
    return inspect.signature(type(call.module).__call__).bind(call.module, *call.args, **call.kwargs)

"""What can be tapped and edited: the modules that an `apply` calls, found without computing anything."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from mmjax.intercept.call import Call
from mmjax.intercept.patterns import match_addresses, methods
from mmjax.intercept.run import Run, paused
from mmjax.paths import MatchReport


class ModuleInfo(NamedTuple):
    """A module that is called.

    Attributes:
      type: name of its class.
      output: what it returns, arrays as `jax.ShapeDtypeStruct`; in a stack, for one layer.
      stack: axes that `tap` finds in front of `output`: `(L,)` in a stack of L layers, () outside. None: out of
        reach for `tap`, because a transformation around it does not carry the collection `intermediates`.
    """

    type: str
    output: Any
    stack: tuple[int, ...] | None


class Target(NamedTuple):
    """A value inside a model, as something that acts on it finds it; arrays are `jax.ShapeDtypeStruct`.

    Attributes:
      path: of the module.
      module: the module, unbound: its settings.
      value: what is at the address; in a stack, for one layer.
      args, kwargs: what the module is called with.
      stack: axes that parameters of layers have in front, see `ModuleInfo`.
    """

    path: str
    module: nn.Module
    value: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    stack: tuple[int, ...] | None


class Survey(NamedTuple):
    """What a run of `apply` meets.

    Attributes:
      targets: every value, by address.
      visited: for each port, the paths of the modules called.
      stacks: site of each lifted transformation that carries `intermediates` -> shape of its stack.
      absent: places without a value -> why.
    """

    targets: dict[str, Target]
    visited: Mapping[str, Iterable[str]]
    stacks: Mapping[str, tuple[int, ...]]
    absent: Mapping[str, str]


def module_paths(apply: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, ModuleInfo]:
    """The modules that `apply(*args, **kwargs)` calls, by path, in the order in which they return.

    Args:
      apply: a function that calls Linen modules.
      *args, **kwargs: its arguments; arrays may be `jax.ShapeDtypeStruct`, nothing is computed.

    Returns:
      path -> type, output, stack.

    >>> import jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = nn.Sequential([nn.Dense(3), nn.Dense(2)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> modules = module_paths(model.apply, variables, jnp.ones((1, 4)))
    >>> {path: (info.type, info.output.shape) for path, info in modules.items()}
    {'layers_0': ('Dense', (1, 3)), 'layers_1': ('Dense', (1, 2))}
    """
    found = survey(apply, args, kwargs).targets
    return {
        path: ModuleInfo(type(target.module).__name__, target.value, target.stack)
        for path, target in found.items()
        if ":" not in path
    }


def match_report(apply: Callable[..., Any], patterns: str | Sequence[str], *args: Any, **kwargs: Any) -> MatchReport:
    """What patterns of addresses match in `apply(*args, **kwargs)`.

    Args:
      apply: a function that calls Linen modules.
      patterns: globs of addresses, as for `tap` and `edit`, or one of them.
      *args, **kwargs: arguments of `apply`; arrays may be `jax.ShapeDtypeStruct`, nothing is computed.

    Returns:
      The report; its paths are addresses.

    Raises:
      NoMatchError: a pattern matches nothing; the message lists the nearest paths.

    >>> import jax.numpy as jnp
    >>> from flax import linen as nn
    >>> model = nn.Sequential([nn.Dense(3), nn.Dense(2)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> match_report(model.apply, ["layers_*", "layers_1:in"], variables, jnp.ones((1, 4))).counts
    {'layers_*': 2, 'layers_1:in': 1}
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    found = survey(apply, args, kwargs, methods=methods(patterns))
    return match_addresses(found.visited, patterns, absent=found.absent)


def find_targets(
    apply: Callable[..., Any], patterns: Sequence[str], *args: Any, **kwargs: Any
) -> dict[str, dict[str, Target]]:
    """What each pattern matches in `apply(*args, **kwargs)`, with all that can be known before anything is computed.

    Args:
      apply: a function that calls Linen modules.
      patterns: globs of addresses.
      *args, **kwargs: arguments of `apply`; arrays may be `jax.ShapeDtypeStruct`.

    Returns:
      pattern -> address -> target, in the order of the calls; the modules of branches (`insert`) are not among them.

    Raises:
      NoMatchError: a pattern matches nothing; the message lists the nearest paths.
    """
    found = survey(apply, args, kwargs, methods=methods(patterns))
    matched = match_addresses(found.visited, tuple(patterns), absent=found.absent).matches
    return {
        pattern: {address: found.targets[address] for address in matched[pattern] if address in found.targets}
        for pattern in patterns
    }


def survey(
    apply: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    methods: Iterable[str] = ("__call__",),
) -> Survey:
    """Traces `apply` on abstract values, the runs around it paused, and notes what is called."""
    seen: dict[str, tuple[Target, str | None]] = {}
    leaves, structure = jax.tree.flatten((args, kwargs))
    found = Survey({}, {}, {}, {})

    def visit(run: Run, address: str, value: Any, call: Call) -> Any:
        run.measure_stack()
        if not run.in_branch:
            shapes = jax.tree.map(_abstract, {"value": value, "args": call.args, "kwargs": dict(call.kwargs)})
            module = call.module.clone(parent=None)
            seen[address] = Target(call.path, module, **shapes, stack=None), run.lifted_site
        return value

    def trace(arrays: list[Any]) -> None:
        nonlocal found
        merged = [leaf if array is None else array for leaf, array in zip(leaves, arrays, strict=True)]
        args, kwargs = structure.unflatten(merged)
        run = Run(visit, methods=methods, writable=True)
        run(apply, args, kwargs)
        stacks = {site: marks[0].shape for site, marks in run.kept.items()}
        targets = {
            address: target._replace(stack=() if site is None else stacks.get(site))
            for address, (target, site) in seen.items()
        }
        found = Survey(targets, run.visited, stacks, run.absent)

    with paused():
        jax.eval_shape(trace, [leaf if _is_array(leaf) else None for leaf in leaves])
    return found


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if _is_array(x) else x

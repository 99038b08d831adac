"""Any optax optimizer by its name."""

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from mmjax.optim.schedules import Schedule
from mmjax.paths import suggestion

# Arguments of `build_optimizer` itself, for near misses.
_SETTINGS = (
    "learning_rate",
    "schedule",
    "weight_decay",
    "grad_clip_norm",
    "rules",
    "undecayed",
    "layer_decay",
    "bounds",
)

# They train at another point than the one to evaluate, which a loop that runs any optimizer cannot know.
_UNSUITABLE = ("schedule_free_adamw", "schedule_free_sgd")


def optimizer_names() -> tuple[str, ...]:
    """Names that `build_optimizer` knows: functions of `optax` and `optax.contrib` from a learning rate.

    >>> {"adamw", "lion", "muon", "sgd"} <= set(optimizer_names())
    True
    """
    return tuple(sorted(_factories()))


def make_optimizer(
    name: str, schedule: Schedule, weight_decay: float, arguments: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    """`optax.<name>(schedule, weight_decay=..., **arguments)`.

    Args:
      name: one of `optimizer_names()`.
      schedule: learning rate as a function of the step.
      weight_decay: passed on where the optimizer has a `weight_decay` of its own (muon has two); otherwise
        the decoupled decay of AdamW is added, `-schedule(step) weight_decay params`.
      arguments: the optimizer's other arguments.

    Raises:
      ValueError: an unknown name; an argument that is unknown, missing, or not set here; an optimizer that
        takes no schedule, or whose update needs more than gradients and parameters.
    """
    factories = _factories()
    if name not in factories:
        raise ValueError(f"build_optimizer: optax has no optimizer {name!r}; {suggestion(name, factories)}")
    parameters = inspect.signature(factories[name]).parameters
    decays = {n: weight_decay for n in parameters if n == "weight_decay" or n.endswith("_weight_decay")}
    _check_arguments(name, parameters, arguments)
    if name == "muon":
        arguments = {"muon_weight_dimension_numbers": _matrices, **arguments}
    try:
        optimizer = factories[name](learning_rate=schedule, **decays, **arguments)
        _run_on_shapes(optimizer)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"build_optimizer: {name} does not run on a schedule, gradients and parameters alone, or with "
            f"{dict(arguments)}: {error}"
        ) from error
    if decays or weight_decay == 0.0:
        return optax.with_extra_args_support(optimizer)
    return optax.chain(optimizer, optax.add_decayed_weights(lambda step: -weight_decay * schedule(step)))


def _matrices(params: Any) -> Any:
    """What Muon orthogonalises: leaves of two axes, in a scanned stack of two beside that of the layers."""

    def of(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        layers = int(any(getattr(key, "key", None) == "blocks" for key in path))
        return optax.contrib.MuonDimensionNumbers(layers, layers + 1) if leaf.ndim == layers + 2 else None

    return jax.tree_util.tree_map_with_path(of, params)


def _factories() -> dict[str, Callable[..., optax.GradientTransformation]]:
    return {
        name: function
        for module in (optax.contrib, optax)
        for name, function in vars(module).items()
        if isinstance(function, types.FunctionType | functools.partial)
        and next(iter(inspect.signature(function).parameters), None) == "learning_rate"
        and not name.startswith(("_", "scale_by_"))
        and name not in _UNSUITABLE
    }


def _check_arguments(name: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]) -> None:
    # Rates and decays come from the rules.
    own = {n: p for n, p in parameters.items() if "learning_rate" not in n and "weight_decay" not in n and n != "mask"}
    shown = ", ".join(n if p.default is p.empty else f"{n}={p.default}" for n, p in own.items())
    for argument in arguments:
        if argument not in own:
            raise ValueError(
                f"build_optimizer: {name} takes no argument {argument!r}; {suggestion(argument, {*own, *_SETTINGS})} "
                f"Its arguments are {shown}"
            )
    missing = [n for n, p in own.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise ValueError(f"build_optimizer: {name} lacks {', '.join(map(repr, missing))}; its arguments are {shown}")


def _run_on_shapes(optimizer: optax.GradientTransformation) -> None:
    probe = {"kernel": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    state = jax.eval_shape(optimizer.init, probe)
    jax.eval_shape(optimizer.update, probe, state, probe)

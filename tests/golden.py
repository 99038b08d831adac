"""Golden numbers: inputs and results of the authors' code, and how a function of ours is held against them.

An archive `tests/goldens/<system>.npz` has keys `<dotted name>/<case>/<kind>/<path>`. Kind `in` is an argument,
`out` a result, `grad` the gradient of the mean of the results (where no mean is recorded of the sum of `value`, or of
all results) with respect to an argument. A path of several names is a nested tree. With an argument `grads` the
function makes an optimizer, and the results are the parameters after a step for each row of the gradients. An archive
holds only what the project implements: a name that cannot be resolved is an error.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.paths import flatten, unflatten

FOLDER = pathlib.Path(__file__).parent / "goldens"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
GRADIENT_TOLERANCE = {"rtol": 5e-4, "atol": 5e-5}


class Golden(NamedTuple):
    """One call on record; `inputs` and `gradients` are trees by argument, `outputs` is flat by path."""

    archive: str
    function: str
    case: str
    inputs: dict[str, Any]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.archive}-{self.function.removeprefix('mmjax.')}-{self.case}"


def read(path: pathlib.Path) -> list[Golden]:
    """All cases of an archive."""
    kinds: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            function, case, kind, name = key.split("/", 3)
            kinds.setdefault((function, case), {"in": {}, "out": {}, "grad": {}})[kind][name] = archive[key]
    return [
        Golden(path.stem, function, case, unflatten(found["in"]), found["out"], unflatten(found["grad"]))
        for (function, case), found in kinds.items()
    ]


def read_all() -> list[Golden]:
    """All cases of all archives."""
    return [golden for path in sorted(FOLDER.glob("*.npz")) for golden in read(path)]


def check(golden: Golden) -> None:
    """Calls what the golden names, under jit, and raises AssertionError where a result or a gradient differs."""
    call, arguments = _bind(resolve(golden.function), jax.tree.map(_argument, golden.inputs))
    constants = {name: value for name, value in arguments.items() if isinstance(value, int | str | bytes)}
    variables = {name: arguments[name] for name in golden.gradients}
    others = {name: value for name, value in arguments.items() if name not in constants | variables}

    def results(variables, others):
        return _results(call(**variables, **others, **constants))

    def objective(variables, others):
        found = results(variables, others)
        parts = next(([name] for name in ("mean", "value") if name in golden.outputs), golden.outputs)
        return sum(jnp.sum(found[name]) for name in parts), found

    if variables:
        gradients, found = jax.jit(jax.grad(objective, has_aux=True))(variables, others)
    else:
        gradients, found = {}, jax.jit(results)(variables, others)
    for name, wanted in golden.outputs.items():
        np.testing.assert_allclose(found[name], wanted, **TOLERANCE, err_msg=f"out/{name}")
    gradients = flatten(gradients)
    for name, wanted in flatten(golden.gradients).items():
        np.testing.assert_allclose(gradients[name], wanted, **GRADIENT_TOLERANCE, err_msg=f"grad/{name}")


def resolve(dotted: str) -> Any:
    """The function or module class of a dotted name, found as a user finds it: in the package that exports it."""
    package, name = dotted.rsplit(".", 1)
    return getattr(importlib.import_module(package), name)


def _argument(value: np.ndarray) -> Any:
    """Text, switches, counts and files as Python values, numbers that may have a gradient as arrays."""
    if value.ndim == 1 and value.dtype == np.uint8:
        return value.tobytes()
    return value.item() if value.ndim == 0 and value.dtype.kind in "iubU" else jnp.asarray(value)


def _bind(target: Callable, arguments: dict[str, Any]) -> tuple[Callable, dict[str, Any]]:
    """A function and its arguments; of a module, those that are no fields, its parameters among them."""
    if "grads" in arguments:
        return _steps(target), arguments
    if not (isinstance(target, type) and issubclass(target, nn.Module)):
        return target, arguments
    fields = {field.name for field in dataclasses.fields(target)} & arguments.keys()
    module = target(**{name: np.asarray(arguments[name]).item() for name in fields})

    def apply(params, **inputs):
        return module.apply({"params": params}, **inputs)

    return apply, {name: value for name, value in arguments.items() if name not in fields}


def _steps(make: Callable) -> Callable:
    """The parameters after the steps of an optimizer."""

    def call(params, grads, **settings):
        optimizer = make(**settings)
        state = optimizer.init(params)
        for i in range(jax.tree.leaves(grads)[0].shape[0]):
            updates, state = optimizer.update(jax.tree.map(lambda leaf, i=i: leaf[i], grads), state, params)
            params = optax.apply_updates(params, updates)
        return params

    return call


def _results(result: Any) -> dict[str, jax.Array]:
    """Results by the names of the archive: a single array, or the first of a tuple, is `value`, and has a `mean`."""
    if hasattr(result, "_asdict"):
        result = result._asdict()
    elif isinstance(result, tuple):
        result = {"value": result[0]}
    elif not isinstance(result, Mapping):
        result = {"value": result}
    flat = flatten(result)
    return {"mean": jnp.mean(flat["value"]), **flat} if "value" in flat else flat

"""A conversion as a table of rules, read in both directions.

A rule names a parameter path, a foreign tensor name and the transform between the two layouts. `{i}` stands for an
index, the same on both sides. One foreign tensor may hold several parameters: `attn/{query,key,value}/kernel` are
stacked along the first axis of the foreign tensor, in that order, as PyTorch's fused `in_proj_weight` is.

The model's own shapes say which tensors there must be, so whatever is missing, left over or of another shape is found
before anything is converted, and reported at once.
"""

import collections
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mmjax.paths import flatten, suggestion, unflatten


class ConversionError(ValueError):
    """A model, checkpoint or folder cannot be converted.

    Attributes:
      problems: every problem found, one a line of the message.
    """

    def __init__(self, summary: str, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__("\n  - ".join([f"{summary}:", *problems]))


class Transform(NamedTuple):
    """A change of layout and its inverse.

    Attributes:
      export: parameter -> foreign tensor.
      load: foreign tensor -> parameter.
    """

    export: Callable[[np.ndarray], np.ndarray]
    load: Callable[[np.ndarray], np.ndarray]


IDENTITY = Transform(lambda x: x, lambda x: x)
DENSE = Transform(np.transpose, np.transpose)  # Kernel [in, out] <-> Linear weight [out, in].
CONV = Transform(lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0))  # HWIO <-> OIHW.


class Rule(NamedTuple):
    """One row of a table.

    Attributes:
      pattern: parameter path with `{i}` for an index and at most one `{a,b}` for parameters that share the tensor.
      name: foreign tensor name with the same `{i}`.
      transform: between a parameter and its (share of the) foreign tensor.
    """

    pattern: str
    name: str
    transform: Transform = IDENTITY


def dense(path: str, name: str) -> tuple[Rule, Rule]:
    """The rules of a dense layer with bias."""
    return Rule(f"{path}/kernel", f"{name}.weight", DENSE), Rule(f"{path}/bias", f"{name}.bias")


def layer_norm(path: str, name: str) -> tuple[Rule, Rule]:
    """The rules of a layer norm with scale and bias."""
    return Rule(f"{path}/scale", f"{name}.weight"), Rule(f"{path}/bias", f"{name}.bias")


def to_foreign(
    params: Mapping[str, Any], rules: Iterable[Rule], *, expected: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Parameters as foreign tensors.

    Args:
      params: tree of floating arrays.
      rules: the table.
      expected: tree of everything with a `shape` that the model has, as `jax.eval_shape` of its `init` gives it.

    Returns:
      Tensor name -> contiguous float32 array.

    Raises:
      ConversionError: parameters are missing, left over, not floating, of another shape or without a rule; all are
        listed.

    >>> table = dense("proj", "projection")
    >>> params = {"proj": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}}
    >>> {name: x.shape for name, x in to_foreign(params, table, expected=params).items()}
    {'projection.weight': (3, 2), 'projection.bias': (3,)}
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(expected).items()}
    flat = flatten(params)
    moves, problems = _plan(rules, shapes)
    problems += _difference("parameter", {p: np.shape(x) for p, x in flat.items()}, shapes)
    problems += _not_floating("parameter", flat)
    if problems:
        raise ConversionError("cannot convert the parameters", problems)
    return {move.name: _contiguous(move.export([_float32(flat[path]) for path in move.paths])) for move in moves}


def to_params(
    tensors: Mapping[str, np.ndarray], rules: Iterable[Rule], *, expected: Mapping[str, Any], ignore: Sequence[str] = ()
) -> dict[str, Any]:
    """Foreign tensors as parameters, the inverse of `to_foreign`.

    Args:
      tensors: tensor name -> floating array.
      rules: the table.
      expected: tree of everything with a `shape` that the model has.
      ignore: globs over names of tensors that hold no parameter, such as stored position ids.

    Returns:
      Tree of float32 arrays in the order of `expected`.

    Raises:
      ConversionError: tensors are missing, left over, not floating or of another shape, or parameters are without a
        rule; all are listed.

    >>> tensors = {"projection.weight": np.ones((3, 2)), "projection.bias": np.zeros(3)}
    >>> expected = {"proj": {"kernel": np.empty((2, 3)), "bias": np.empty(3)}}
    >>> to_params(tensors, dense("proj", "projection"), expected=expected)["proj"]["kernel"].shape
    (2, 3)
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(expected).items()}
    kept = {n: x for n, x in tensors.items() if not any(fnmatch.fnmatchcase(n, glob) for glob in ignore)}
    moves, problems = _plan(rules, shapes)
    wanted = {m.name: m.export([np.broadcast_to(np.float32(0), shapes[p]) for p in m.paths]).shape for m in moves}
    problems += _difference("tensor", {n: np.shape(x) for n, x in kept.items()}, wanted)
    problems += _not_floating("tensor", kept)
    if problems:
        raise ConversionError("cannot convert the tensors", problems)
    flat = {}
    for move in moves:
        flat.update(zip(move.paths, map(jnp.asarray, move.load(_float32(kept[move.name]))), strict=True))
    return unflatten({path: flat[path] for path in shapes})


class _Move(NamedTuple):
    """A rule at one index: these parameters <-> this tensor."""

    paths: tuple[str, ...]
    name: str
    transform: Transform

    def export(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        parts = [self.transform.export(x) for x in arrays]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def load(self, tensor: np.ndarray) -> list[np.ndarray]:
        parts = np.split(tensor, len(self.paths)) if len(self.paths) > 1 else [tensor]
        return [self.transform.load(x) for x in parts]


def _plan(rules: Iterable[Rule], paths: Iterable[str]) -> tuple[list[_Move], list[str]]:
    """The moves that cover `paths`, and a problem for each path that not exactly one rule claims."""
    rules, paths, moves = tuple(rules), list(paths), []
    for rule in rules:
        templates = _alternatives(rule.pattern)
        for found in filter(None, (re.fullmatch(_regex(templates[0]), path) for path in paths)):
            shared = tuple(template.format(**found.groupdict()) for template in templates)
            if set(shared) <= set(paths):
                moves.append(_Move(shared, rule.name.format(**found.groupdict()), rule.transform))
    claims = collections.Counter(path for move in moves for path in move.paths)
    patterns = [rule.pattern for rule in rules]
    problems = [f"no rule for {path!r}; {suggestion(path, patterns)}" for path in paths if not claims[path]]
    problems += [f"{count} rules for {path!r}, expected one" for path, count in claims.items() if count > 1]
    return moves, problems


def _alternatives(pattern: str) -> list[str]:
    group = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if group is None:
        return [pattern]
    return [pattern[: group.start()] + name + pattern[group.end() :] for name in group[1].split(",")]


def _regex(template: str) -> str:
    return re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(template))


def _difference(kind: str, found: Mapping[str, tuple], wanted: Mapping[str, tuple]) -> list[str]:
    """Names missing from or left over in `found`, and shapes that differ."""
    missing = [
        f"missing {kind} {n!r} {s}; {suggestion(n, found.keys() - wanted)}" for n, s in wanted.items() if n not in found
    ]
    extra = [f"{kind} {n!r} {s} has no place in the model" for n, s in found.items() if n not in wanted]
    other = [
        f"{kind} {n!r} has shape {s}, expected {wanted[n]}" for n, s in found.items() if n in wanted and s != wanted[n]
    ]
    return missing + extra + other


def _not_floating(kind: str, arrays: Mapping[str, Any]) -> list[str]:
    return [
        f"{kind} {name!r} has dtype {x.dtype}, expected floating point"
        for name, x in arrays.items()
        if not jnp.issubdtype(x.dtype, jnp.floating)
    ]


def _float32(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float32)


def _contiguous(array: np.ndarray) -> np.ndarray:
    """A copy in C order: safetensors writes the memory of a transposed view as it lies."""
    return np.array(array, order="C")

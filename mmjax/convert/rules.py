"""A conversion as a table of rules, read in both directions.

A rule names a parameter path, a foreign tensor name and the transform between the two layouts. `{i}` stands for an
index, the same on both sides. One foreign tensor may hold several parameters: `attn/{query,key,value}/kernel` are
stacked along the first axis of the foreign tensor, in that order, as PyTorch's fused `in_proj_weight` is. Several
foreign tensors may hold one parameter, each some of its rows: `position_embedding[:1]` and `position_embedding[1:]`.
What has no foreign tensor at all, `Rule(path, None)`, is zero.

The model's own shapes say which tensors there must be, so whatever is missing, left over or of another shape is found
before anything is converted, and reported at once.
"""

import collections
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mmjax.convert.errors import ConversionError
from mmjax.convert.transforms import IDENTITY, Transform
from mmjax.paths import flatten, suggestion, unflatten


class Rule(NamedTuple):
    """One row of a table. A rule that matches no parameter of a model says nothing about it.

    Attributes:
      pattern: parameter path with `{i}` for an index, at most one `{a,b}` for parameters that share the tensor, and
        `[a:b]` behind it for some rows.
      name: foreign tensor name with the same `{i}`; None = the format has no such tensor, and these parameters are 0.
      transform: between a parameter (those rows of it) and its (share of the) foreign tensor.
    """

    pattern: str
    name: str | None
    transform: Transform = IDENTITY


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
      ConversionError: parameters are missing, left over, not floating, of another shape, without a rule, or not zero
        where the format takes them to be; all are listed.

    >>> from mmjax.convert.layers import dense
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
    problems += [
        f"parameter {part} is not zero, but the format has no tensor for it"
        for move in moves
        for part in move.parts
        if move.name is None and part.path in flat and np.any(part.of(flat[part.path]))
    ]
    if problems:
        raise ConversionError("cannot convert the parameters", problems)
    return {
        move.name: _contiguous(move.export([_float32(part.of(flat[part.path])) for part in move.parts]))
        for move in moves
        if move.name is not None
    }


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

    >>> from mmjax.convert.layers import dense
    >>> tensors = {"projection.weight": np.ones((3, 2)), "projection.bias": np.zeros(3)}
    >>> expected = {"proj": {"kernel": np.empty((2, 3)), "bias": np.empty(3)}}
    >>> to_params(tensors, dense("proj", "projection"), expected=expected)["proj"]["kernel"].shape
    (2, 3)
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(expected).items()}
    kept = {n: x for n, x in tensors.items() if not any(fnmatch.fnmatchcase(n, glob) for glob in ignore)}
    moves, problems = _plan(rules, shapes)
    blank = {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()}
    wanted = {m.name: m.export([p.of(blank[p.path]) for p in m.parts]).shape for m in moves if m.name is not None}
    problems += _difference("tensor", {n: np.shape(x) for n, x in kept.items()}, wanted)
    problems += _not_floating("tensor", kept)
    if problems:
        raise ConversionError("cannot convert the tensors", problems)
    pieces: dict[str, list[tuple[int, np.ndarray]]] = collections.defaultdict(list)
    for move in moves:
        zeros = [part.of(blank[part.path]) for part in move.parts]
        arrays = zeros if move.name is None else move.load(_float32(kept[move.name]))
        for part, array in zip(move.parts, arrays, strict=True):
            pieces[part.path].append((part.start, array))
    return unflatten({path: jnp.asarray(_joined(pieces[path])) for path in shapes})


class _Part(NamedTuple):
    """A parameter, or rows `start` to `stop` of one."""

    path: str
    start: int
    stop: int
    whole: bool

    def of(self, array: Any) -> Any:
        return array if self.whole else array[self.start : self.stop]

    def __str__(self) -> str:
        return repr(self.path) if self.whole else f"'{self.path}[{self.start}:{self.stop}]'"


class _Move(NamedTuple):
    """A rule at one index: these parameters <-> this tensor."""

    parts: tuple[_Part, ...]
    name: str | None
    transform: Transform

    def export(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        shares = [self.transform.export(x) for x in arrays]
        return np.concatenate(shares) if len(shares) > 1 else shares[0]

    def load(self, tensor: np.ndarray) -> list[np.ndarray]:
        shares = np.split(tensor, len(self.parts)) if len(self.parts) > 1 else [tensor]
        return [self.transform.load(x) for x in shares]


def _plan(rules: Iterable[Rule], shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[_Move], list[str]]:
    """The moves that cover the parameters, and a problem for each that not exactly one rule claims."""
    rules, moves = tuple(rules), []
    for rule in rules:
        pattern, rows = _rows(rule.pattern)
        templates = _alternatives(pattern)
        for found in filter(None, (re.fullmatch(_regex(templates[0]), path) for path in shapes)):
            shared = [template.format(**found.groupdict()) for template in templates]
            if shapes.keys() >= set(shared):
                name = None if rule.name is None else rule.name.format(**found.groupdict())
                moves.append(_Move(tuple(_part(path, rows, shapes[path]) for path in shared), name, rule.transform))
    claims: dict[str, list[_Part]] = {path: [] for path in shapes}
    for part in (part for move in moves for part in move.parts):
        claims[part.path].append(part)
    patterns = [rule.pattern for rule in rules]
    problems = [f"no rule for {path!r}; {suggestion(path, patterns)}" for path, parts in claims.items() if not parts]
    problems += [problem for path, parts in claims.items() if parts for problem in _coverage(path, parts, shapes[path])]
    names = collections.Counter(move.name for move in moves if move.name is not None)
    problems += [f"{count} rules fill tensor {name!r}, expected one" for name, count in names.items() if count > 1]
    return moves, problems


def _rows(pattern: str) -> tuple[str, slice | None]:
    """A pattern without its `[a:b]`, and these rows."""
    found = re.fullmatch(r"(.*)\[(\d*):(\d*)\]", pattern)
    if found is None:
        return pattern, None
    start, stop = (int(number) if number else None for number in found.groups()[1:])
    return found[1], slice(start, stop)


def _part(path: str, rows: slice | None, shape: tuple[int, ...]) -> _Part:
    count = shape[0] if shape else 1
    start, stop, _ = (rows or slice(None)).indices(count)
    return _Part(path, start, stop, whole=rows is None)


def _coverage(path: str, parts: Sequence[_Part], shape: tuple[int, ...]) -> list[str]:
    """What is wrong where the parts do not lie end to end over the parameter."""
    parts = sorted(parts, key=lambda part: part.start)
    ends = [0, *(part.stop for part in parts)]
    starts = [*(part.start for part in parts), shape[0] if shape else 1]
    if any(start < end for start, end in zip(starts, ends, strict=True)):
        return [f"{len(parts)} rules for {path!r}, expected one"]
    gaps = [(end, start) for start, end in zip(starts, ends, strict=True) if start > end]
    return [f"no rule for rows {end} to {start} of {path!r}" for end, start in gaps]


def _joined(pieces: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    arrays = [array for _, array in sorted(pieces, key=lambda piece: piece[0])]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


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

"""Where each parameter lies on the mesh: ordered rules over parameter paths, as `mmjax.optim` has them for training.

A rule pairs a glob with mesh axes for the LAST axes of the leaves it claims, so that one rule serves a layer `[D, M]`
and a scanned stack of layers `[L, D, M]`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.config import ConfigError
from mmjax.paths import flatten, match, matches, suggestion

Axis = str | Sequence[str] | None
Rule = tuple[str, Sequence[Axis]]

# Megatron's split: the first product of a pair by columns (whole heads, whole hidden units), the second by rows, so
# that a block sums over devices twice, once after each pair.
TENSOR_RULES: tuple[Rule, ...] = (
    ("**/attn/{query,key,value}/kernel", (None, "tensor")),
    ("**/attn/{query,key,value}/bias", ("tensor",)),
    ("**/attn/out/kernel", ("tensor", None)),
    ("**/mlp/{fc1,gate,up}/kernel", (None, "tensor")),
    ("**/mlp/{fc1,gate,up}/bias", ("tensor",)),
    ("**/mlp/{fc2,down}/kernel", ("tensor", None)),
)

# The first axis of a scanned stack counts its layers: split, every step of the scan would fetch from one device.
_STACKED = "**/blocks/**"


class Placed(NamedTuple):
    """A parameter: path, shape, mesh axes, and the origin of these as the report names it."""

    path: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    origin: str

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ShardingPlan:
    """The place of every parameter on a mesh; print it for a table of rules and leaves.

    Attributes:
      mesh: from `make_mesh`.
      origins: the rules and the automatic placements, in the order of the report.
      leaves: every parameter, in the tree's order.
    """

    mesh: Mesh
    origins: tuple[str, ...]
    leaves: tuple[Placed, ...]

    def shardings(self, tree: Any) -> Any:
        """A tree like `tree` of shardings: each leaf follows the parameter whose path its own path ends in.

        Parameters, their moving average and the moments of optimizers are alike in this. A leaf that ends in no
        parameter's path, or has another shape (factored moments), is replicated.

        Args:
          tree: arrays, or anything with a `shape`: parameters, an optimizer state, a whole train state.
        """
        placed = {leaf.path: leaf for leaf in self.leaves}

        def of(keys: tuple[Any, ...], leaf: Any) -> NamedSharding:
            names = [_name(key) for key in keys]
            endings = ("/".join(names[start:]) for start in range(len(names)))
            found = next((placed[ending] for ending in endings if ending in placed), None)
            follows = found is not None and found.shape == tuple(leaf.shape)
            return NamedSharding(self.mesh, found.spec if found is not None and follows else PartitionSpec())

        return jax.tree_util.tree_map_with_path(of, tree)

    def __str__(self) -> str:
        def line(leaves: Iterable[Placed], text: str) -> str:
            leaves = tuple(leaves)
            whole, part = sum(leaf.size for leaf in leaves), sum(leaf.size // self._parts(leaf.spec) for leaf in leaves)
            return f"{len(leaves):8,d} {whole:14,d} {part:14,d}  {text}"

        lines = [f"{'leaves':>8} {'parameters':>14} {'a device':>14}  placement"]
        lines += [line((leaf for leaf in self.leaves if leaf.origin == origin), origin) for origin in self.origins]
        return "\n".join([*lines, line(self.leaves, "(total)")])

    def _parts(self, spec: PartitionSpec) -> int:
        return math.prod(self.mesh.shape[axis] for entry in spec for axis in _axes(entry))


def plan_sharding(
    params: Mapping[str, Any], mesh: Mesh, *, rules: Sequence[Rule] = (), min_size: int = 2**14
) -> ShardingPlan:
    """Gives every parameter its place.

    1. The first of `rules` that matches a leaf decides alone. 2. With a tensor axis above 1, `TENSOR_RULES` split
    attention and MLP. 3. With an fsdp axis above 1, every leaf of `min_size` or more that no rule of step 1 claimed is
    split along the largest axis that is still free and divisible (the first of equals; never the layers of a scanned
    stack). 4. The rest is replicated.

    Args:
      params: nested dict of arrays, or of anything with a `shape`.
      mesh: from `make_mesh`.
      rules: ordered pairs `(glob, axes)`; `axes` names for each of a leaf's last axes the mesh axis that splits it, a
        tuple of several, or None. `("**/token_embedding/embedding", ("tensor", None))` splits the vocabulary, `(glob,
        ())` replicates.
      min_size: scalars from which a leaf is split over fsdp; the default, 16,384, is 64 KiB in float32: smaller ones
        cost more in messages than they take in memory.

    Raises:
      NoMatchError: a rule matches no leaf.
      ConfigError: a rule claims nothing or asks for what is impossible, or nothing is split over an axis above 1.

    >>> mesh = jax.sharding.AbstractMesh((1, 8, 1), ("data", "fsdp", "tensor"))
    >>> print(plan_sharding({"kernel": jax.ShapeDtypeStruct((256, 64), "float32")}, mesh))
      leaves     parameters       a device  placement
           1         16,384          2,048  fsdp: largest axis, of leaves of 16,384 or more
           0              0              0  replicated
           1         16,384          2,048  (total)
    """
    flat = {path: tuple(leaf.shape) for path, leaf in flatten(params).items()}
    match(list(flat), [pattern for pattern, _ in rules])
    automatic = f"fsdp: largest axis, of leaves of {min_size:,} or more"
    leaves = []
    for path, shape in flat.items():
        rule = next((rule for rule in rules if matches(path, rule[0])), None)
        split = None if rule is not None or mesh.shape["tensor"] == 1 else _tensor_rule(path)
        chosen = rule or split
        entries = _entries(chosen or (path, ()), path, shape, mesh)
        origin = "replicated" if chosen is None else _origin(chosen)
        if rule is None and mesh.shape["fsdp"] > 1 and math.prod(shape) >= min_size:
            axis = _largest_free(path, shape, entries, mesh.shape["fsdp"])
            if axis is not None:
                entries[axis] = "fsdp"
                origin = f"{origin} + fsdp" if split else automatic
        leaves.append(Placed(path, shape, PartitionSpec(*entries), origin))
    _check_rules_claim(rules, leaves)
    plan = ShardingPlan(mesh, _origins(rules, leaves, automatic, mesh), tuple(leaves))
    _check_axes_used(plan, min_size)
    return plan


def _tensor_rule(path: str) -> Rule | None:
    return next((rule for rule in TENSOR_RULES if matches(path, rule[0])), None)


def _entries(rule: Rule, path: str, shape: tuple[int, ...], mesh: Mesh) -> list[Any]:
    """The mesh axes of all axes of a leaf."""
    pattern, axes = rule
    named = [axis for entry in axes for axis in _axes(entry)]
    where = f"sharding rule {_origin(rule)}"
    for axis in named:
        if axis not in mesh.shape:
            raise ConfigError(f"{where}: the mesh has no axis {axis!r}; {suggestion(axis, mesh.shape)}")
    if len(set(named)) < len(named):
        raise ConfigError(f"{where}: a mesh axis can split one axis of a leaf; name each once")
    if len(axes) > len(shape):
        raise ConfigError(
            f"{where}: {path} {shape} has {len(shape)} axes, the rule names {len(axes)}; narrow {pattern!r}"
        )
    entries: list[Any] = [None] * (len(shape) - len(axes)) + [_axes(entry) or None for entry in axes]
    for length, entry in zip(shape, entries, strict=True):
        parts = math.prod(mesh.shape[axis] for axis in entry or ())
        if length % parts:
            sizes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
            raise ConfigError(
                f"{where}: {path} {shape} has an axis of {length}, which does not divide over the {parts} devices of "
                f"{' x '.join(entry or ())} (mesh: {sizes}); choose another mesh, or put a rule ({path!r}, ()) before"
            )
    return [entry[0] if entry and len(entry) == 1 else entry for entry in entries]


def _largest_free(path: str, shape: tuple[int, ...], entries: Sequence[Any], parts: int) -> int | None:
    first = int(matches(path, _STACKED))
    free = [i for i in range(first, len(shape)) if entries[i] is None and shape[i] % parts == 0]
    return max(free, key=lambda i: shape[i], default=None)


def _check_rules_claim(rules: Sequence[Rule], leaves: Sequence[Placed]) -> None:
    claimed = {leaf.origin for leaf in leaves}
    for number, rule in enumerate(rules):
        if _origin(rule) not in claimed or rule in rules[:number]:
            raise ConfigError(
                f"sharding rule {_origin(rule)} claims nothing, since earlier rules claim all leaves that it matches; "
                "move it before them, or remove it"
            )


def _origins(rules: Sequence[Rule], leaves: Sequence[Placed], automatic: str, mesh: Mesh) -> tuple[str, ...]:
    found = {leaf.origin for leaf in leaves}
    split = [f"{_origin(rule)}{more}" for rule in TENSOR_RULES for more in (" + fsdp", "")]
    listed = [_origin(rule) for rule in rules] + [origin for origin in split if origin in found]
    return tuple(dict.fromkeys([*listed, *([automatic] if mesh.shape["fsdp"] > 1 else []), "replicated"]))


def _check_axes_used(plan: ShardingPlan, min_size: int) -> None:
    used = {axis for leaf in plan.leaves for entry in leaf.spec for axis in _axes(entry)}
    fixes = {"fsdp": f"lower sharding.min_size ({min_size:,})", "tensor": "add sharding.rules for this model"}
    for axis, fix in fixes.items():
        if plan.mesh.shape[axis] > 1 and axis not in used:
            raise ConfigError(
                f"mesh.{axis} is {plan.mesh.shape[axis]}, but none of {len(plan.leaves)} parameters is split over it; "
                f"{fix}, or set mesh.{axis} to 1"
            )


def _axes(entry: Axis) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _origin(rule: Rule) -> str:
    pattern, axes = rule
    return f"{pattern} ({', '.join('+'.join(_axes(entry)) or 'whole' for entry in axes)})"


def _name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))

"""Which parameters train: ordered rules over parameter paths, and the split of the tree that they define."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmjax.paths import flatten, match, suggestion, unflatten


class Rule(NamedTuple):
    """How the parameters under a pattern are trained.

    Attributes:
      pattern: glob over parameter paths; the first rule that matches a leaf claims it.
      frozen: whether its leaves stay as they are: no gradient, no optimizer state.
      rate: multiple of the learning rate, above 0.
      weight_decay: in place of the optimizer's, on the same kind of leaves (matrices); None keeps it.
    """

    pattern: str
    frozen: bool = False
    rate: float = 1.0
    weight_decay: float | None = None


RuleLike = Rule | Sequence[Any]  # a Rule, or a pair (pattern, {setting: value}) as a config holds it


class Leaf(NamedTuple):
    """A parameter: its path, its shape, the index of the rule that claims it, and whether it trains."""

    path: str
    shape: tuple[int, ...]
    rule: int
    trains: bool

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Partition:
    """A parameter tree cut in two: what trains, and what does not. Hashable, hence static under `jit`.

    Attributes:
      rules: in order.
      leaves: every leaf of the tree, in its order.
    """

    rules: tuple[Rule, ...]
    leaves: tuple[Leaf, ...]

    @property
    def trainable(self) -> tuple[Leaf, ...]:
        """The leaves that train."""
        return tuple(leaf for leaf in self.leaves if leaf.trains)

    @property
    def frozen(self) -> tuple[Leaf, ...]:
        """The leaves that do not."""
        return tuple(leaf for leaf in self.leaves if not leaf.trains)

    def split(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """`(trainable, frozen)`: two nested dicts; a leaf of one is absent from the other.

        Raises:
          ValueError: `params` has not the paths that the partition was made for.
        """
        flat = _checked("split", "params", params, self.leaves)
        trainable = unflatten({leaf.path: flat[leaf.path] for leaf in self.trainable})
        return trainable, unflatten({leaf.path: flat[leaf.path] for leaf in self.frozen})

    def join(self, trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `split`; differentiable with respect to either part.

        Raises:
          ValueError: a part has not the paths that the partition gives it.
        """
        flat = _checked("join", "trainable", trainable, self.trainable)
        flat = flat | _checked("join", "frozen", frozen, self.frozen)
        return unflatten({leaf.path: flat[leaf.path] for leaf in self.leaves})

    def __str__(self) -> str:
        def line(leaves: Iterable[Leaf], text: str) -> str:
            leaves = tuple(leaves)
            sizes = [sum(leaf.size for leaf in leaves if leaf.trains is trains) for trains in (True, False)]
            return f"{len(leaves):8,d} {sizes[0]:14,d} {sizes[1]:14,d}  {text}"

        lines = [f"{'leaves':>8} {'trainable':>14} {'frozen':>14}  rule"]
        for index, rule in enumerate(self.rules):
            changes = [f"{name}={value}" for name, value in _changes(rule).items()]
            lines.append(line((leaf for leaf in self.leaves if leaf.rule == index), " ".join([rule.pattern, *changes])))
        return "\n".join([*lines, line(self.leaves, "(total)")])


def partition_params(
    params: Mapping[str, Any],
    rules: Sequence[RuleLike] = (Rule("**"),),
    *,
    trains: Sequence[tuple[str, bool]] = (("**", True),),
) -> Partition:
    """Assigns every leaf to the first rule that matches it.

    A leaf trains when its rule is not frozen and `trains` agrees: rules are the user's, it is the method's.

    Args:
      params: nested dict of arrays, or of anything with a `shape` (`jax.ShapeDtypeStruct`).
      rules: ordered; each a `Rule` or a pair `(pattern, {setting: value})`.
      trains: ordered pairs `(pattern, whether it trains)`, first match again.

    Returns:
      The partition.

    Raises:
      NoMatchError: a pattern matches no leaf; the message lists the nearest paths.
      ValueError: a leaf that no rule claims, a rule whose leaves all belong to earlier rules, a rule that
        contradicts itself, or nothing left to train.

    >>> import jax.numpy as jnp
    >>> params = {"image": {"proj": {"kernel": jnp.ones((4, 2))}}, "log_scale": jnp.zeros((), jnp.float32)}
    >>> partition = partition_params(params, [("image/**", {"frozen": True}), ("**", {"rate": 0.1})])
    >>> print(partition)
      leaves      trainable         frozen  rule
           1              0              8  image/** frozen=True
           1              1              0  ** rate=0.1
           2              1              8  (total)
    >>> partition.split(params)[0]
    {'log_scale': Array(0., dtype=float32)}
    """
    ordered = tuple(_as_rule(rule) for rule in rules)
    flat = flatten(params)
    owner = _claim(flat, [rule.pattern for rule in ordered], "rules")
    verdict = _claim(flat, [pattern for pattern, _ in trains], "trains")
    leaves = tuple(
        Leaf(
            path,
            tuple(leaf.shape),
            owner[path],
            bool(trains[verdict[path]][1]) and not ordered[owner[path]].frozen,
        )
        for path, leaf in flat.items()
    )
    if not any(leaf.trains for leaf in leaves):
        raise ValueError(f"partition_params: nothing trains, all {len(leaves)} leaves are frozen; unfreeze some")
    return Partition(ordered, leaves)


def _claim(paths: Iterable[str], patterns: Sequence[str], argument: str) -> dict[str, int]:
    """The index of the first pattern that matches, for each path."""
    paths = list(paths)
    found = match(paths, patterns).matches
    owner: dict[str, int] = {}
    for index, pattern in enumerate(patterns):
        claimed = [path for path in found[pattern] if path not in owner]
        if not claimed:
            earlier = sorted({patterns[owner[path]] for path in found[pattern]})
            raise ValueError(
                f"partition_params: {argument}[{index}] {pattern!r} claims nothing, since earlier patterns "
                f"({', '.join(map(repr, earlier))}) claim all {len(found[pattern])} leaves that it matches; "
                "move it before them, or remove it"
            )
        owner |= dict.fromkeys(claimed, index)
    unclaimed = [path for path in paths if path not in owner]
    if unclaimed:
        raise ValueError(
            f"partition_params: {argument} claim {len(owner)} of {len(paths)} leaves, but not "
            f"{_listing(unclaimed)}; add a pattern for the rest, or '**' as the last"
        )
    return owner


def _as_rule(rule: RuleLike) -> Rule:
    if not isinstance(rule, Rule):
        if len(rule) != 2 or not isinstance(rule[0], str) or not isinstance(rule[1], Mapping):
            raise ValueError(f"partition_params: a rule is a pair (pattern, {{setting: value}}), found {rule!r}")
        pattern, settings = rule
        known = Rule._fields[1:]
        for name in settings:
            if name not in known:
                raise ValueError(f"partition_params: rule {pattern!r} has {name!r}; {suggestion(name, known)}")
        rule = Rule(pattern, **settings)
    if rule.frozen and len(_changes(rule)) > 1:
        raise ValueError(f"partition_params: {rule} is frozen, so that its rate and weight decay say nothing")
    if not 0.0 < rule.rate < math.inf:
        raise ValueError(f"partition_params: {rule} needs a finite rate above 0; to stop training use frozen=True")
    return rule


def _changes(rule: Rule) -> dict[str, Any]:
    """The settings of a rule that differ from the defaults."""
    return {n: v for n, v in rule._asdict().items() if n != "pattern" and v != Rule._field_defaults[n]}


def _checked(function: str, argument: str, tree: Mapping[str, Any], leaves: Sequence[Leaf]) -> dict[str, Any]:
    flat = flatten(tree)
    expected = {leaf.path for leaf in leaves}
    if flat.keys() != expected:
        differences = [
            ("lacks", sorted(expected - flat.keys())),
            ("has besides", sorted(flat.keys() - expected)),
        ]
        detail = "; ".join(f"it {verb} {_listing(paths)}" for verb, paths in differences if paths)
        raise ValueError(f"Partition.{function}: {argument} is not the tree that was partitioned: {detail}")
    return flat


def _listing(paths: Sequence[str], *, limit: int = 8) -> str:
    return ", ".join(paths[:limit]) + (f" and {len(paths) - limit} more" if len(paths) > limit else "")

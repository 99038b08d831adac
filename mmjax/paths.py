"""Parameter paths: a tree as `{path: leaf}`, and the one pattern language that addresses leaves and modules.

A path joins names by "/", as in `image/encoder/block_3/attn/query/kernel`. A pattern is a glob over paths: `*` within
one name, `**` over any number of names, `{query,value}` alternatives, `{0..5}` a range. A pattern that matches nothing
is an error that lists the nearest paths.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wcmatch import glob

_FLAGS = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.FORCEUNIX


class NoMatchError(ValueError):
    """A pattern matched no path."""


class MatchReport(NamedTuple):
    """What each pattern matched.

    Attributes:
      matches: for each pattern, in order, the paths it matched.
      total: number of paths looked at.
    """

    matches: Mapping[str, tuple[str, ...]]
    total: int

    @property
    def counts(self) -> dict[str, int]:
        """Number of paths for each pattern."""
        return {pattern: len(paths) for pattern, paths in self.matches.items()}

    @property
    def matched(self) -> frozenset[str]:
        """Paths that at least one pattern matched."""
        return frozenset(path for paths in self.matches.values() for path in paths)

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} of {self.total} paths matched"]
        for pattern, paths in self.matches.items():
            example = f"  e.g. {paths[0]}" if paths else ""
            lines.append(f"  {len(paths):6d}  {pattern}{example}")
        return "\n".join(lines)


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one dict of paths, in the tree's own order; an empty mapping has no path.

    >>> flatten({"image": {"proj": {"kernel": 1}}, "log_scale": 2})
    {'image/proj/kernel': 1, 'log_scale': 2}
    """
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()})
        else:
            flat[str(name)] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`.

    >>> unflatten({"image/proj/kernel": 1, "log_scale": 2})
    {'image': {'proj': {'kernel': 1}}, 'log_scale': 2}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def matches(path: str, pattern: str) -> bool:
    """Whether the glob `pattern` matches the whole `path`.

    >>> matches("image/encoder/block_3/attn/query/kernel", "image/**/attn/{query,value}/kernel")
    True
    >>> matches("text/encoder/block_7/mlp/fc1/kernel", "**/block_{0..5}/**")
    False
    """
    return glob.globmatch(path, pattern, flags=_FLAGS)


def nearest(name: str, names: Iterable[str], *, count: int = 3) -> list[str]:
    """The `count` names most like `name`, best first."""
    return difflib.get_close_matches(name, list(names), n=count, cutoff=0.4)


def suggestion(name: str, names: Iterable[str]) -> str:
    """A clause for an error message: the near misses of `name`, or all names where none is near."""
    names = sorted(map(str, names))
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"there are: {shown}" if names else "there are none"


def match(paths: Iterable[str], patterns: Sequence[str], *, allow_unmatched: bool = False) -> MatchReport:
    """What each pattern matches among `paths`.

    Args:
      paths: paths of leaves or modules.
      patterns: globs; one path may match several.
      allow_unmatched: whether a pattern may match nothing.

    Returns:
      The report, patterns in their order.

    Raises:
      NoMatchError: a pattern matches nothing; the message lists the nearest paths.

    >>> match(["image/proj/kernel", "text/proj/kernel"], ["text/**"]).counts
    {'text/**': 1}
    """
    paths = list(paths)
    report = MatchReport({p: tuple(path for path in paths if matches(path, p)) for p in patterns}, len(paths))
    if not allow_unmatched:
        lost = [pattern for pattern, found in report.matches.items() if not found]
        if lost:
            detail = "; ".join(f"{pattern!r}: {suggestion(pattern, paths)}" for pattern in lost)
            raise NoMatchError(f"{len(lost)} of {len(patterns)} patterns match none of {len(paths)} paths. {detail}")
    return report

"""Addresses of values inside a model, `<module path>[:<port>]`, and the patterns that match them.

`image/encoder/block_3/attn` is what the module returns and `image/encoder/block_3/attn:in` its first argument;
`text/token_embedding:attend` and `text/token_embedding:attend:in` are those of its method `attend`. Edits and branches
also reach `attn:args`, all arguments `(args, kwargs)`; `:args` are those of the model as a whole. A pattern is a glob
over paths, its port is literal: `**` matches no inputs, `**:in` nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence

from mmjax.paths import MatchReport, NoMatchError, match, matches


def port(method: str, side: str = "") -> str:
    """The port of a method's output (`side` ""), first argument (`side` "in") or all its arguments ("args").

    >>> port("__call__"), port("__call__", "in"), port("attend", "in")
    ('', 'in', 'attend:in')
    """
    return ":".join(part for part in (method.replace("__call__", ""), side) if part)


def methods(patterns: Iterable[str]) -> frozenset[str]:
    """The methods that the patterns are about.

    >>> sorted(methods(["image/**:in", "**/token_embedding:attend"]))
    ['__call__', 'attend']
    """
    ports = (_split(pattern)[1].split(":") for pattern in patterns)
    return frozenset(next((part for part in parts if part not in ("", "in", "args")), "__call__") for parts in ports)


def address(path: str, port: str) -> str:
    """The address of a port of the module at `path`."""
    return f"{path}:{port}" if port else path


def path_of(pattern: str) -> str:
    """The glob over paths of a pattern.

    >>> path_of("encoder/*:in")
    'encoder/*'
    """
    return _split(pattern)[0]


def matches_path(path: str, glob: str) -> bool:
    """Whether `glob` matches the path of a module; that of the model as a whole, "", is matched by itself alone.

    >>> matches_path("encoder/mlp", "**"), matches_path("", "**"), matches_path("", "")
    (True, False, True)
    """
    return matches(path, glob) if path else not glob


def matches_address(address: str, pattern: str) -> bool:
    """Whether `pattern` matches `address`.

    >>> matches_address("encoder/mlp:in", "encoder/*:in"), matches_address("encoder/mlp:in", "encoder/*")
    (True, False)
    """
    path, port = _split(address)
    glob, wanted = _split(pattern)
    return port == wanted and matches_path(path, glob)


def match_addresses(
    visited: Mapping[str, Iterable[str]], patterns: Sequence[str], *, absent: Mapping[str, str] | None = None
) -> MatchReport:
    """What each pattern matches.

    Args:
      visited: for each port, the paths of the modules that were called.
      patterns: patterns of addresses.
      absent: path -> reason, of places that have no value here.

    Returns:
      The report; its paths are addresses.

    Raises:
      NoMatchError: a pattern matches nothing, or nothing but what is absent.
    """
    globs: dict[str, list[str]] = {}
    for glob, port in map(_split, patterns):
        globs.setdefault(port, []).append(glob)
    for pattern in patterns:
        glob, port = _split(pattern)
        missing = [path for path in absent or {} if matches(path, glob)]
        if absent and missing and not any(matches(path, glob) for path in visited.get(port, ())):
            raise NoMatchError(f"{pattern!r} matches only what is absent here, {missing[0]!r}: {absent[missing[0]]}")
    reports = {port: match(visited.get(port, ()), globs[port]) for port in globs}
    found = {}
    for pattern in patterns:
        glob, port = _split(pattern)
        found[pattern] = tuple(address(path, port) for path in reports[port].matches[glob])
    return MatchReport(found, sum(report.total for report in reports.values()))


def _split(address: str) -> tuple[str, str]:
    path, _, port = address.partition(":")
    return path, port

"""Starting a run from the parameters of another, with a report of what was taken and what was not."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmjax import paths
from mmjax.config import ConfigError
from mmjax.method import Params
from mmjax.models import stack_layers, unstack_layers


class WarmStart(NamedTuple):
    """Parameters taken from elsewhere, by path.

    Attributes:
      params: the full tree.
      loaded: paths that came from elsewhere.
      kept: paths that keep their initial value.
      unused: paths that the other tree has and this one lacks.
    """

    params: dict[str, Any]
    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"warm start: {len(self.loaded)} leaves loaded, {len(self.kept)} kept, {len(self.unused)} unused"]
        lines += [f"  kept: {path}" for path in self.kept] + [f"  unused: {path}" for path in self.unused]
        return "\n".join(lines)


def warm_start(params: Params, source: Mapping[str, Any]) -> WarmStart:
    """`params` with every leaf replaced that `source` has at the same path.

    Args:
      params: freshly initialised.
      source: trained elsewhere; its layers may be scanned where those of `params` are not, and the reverse.

    Returns:
      The report, with the joined parameters.

    Raises:
      ConfigError: no leaf is shared, or a shared one has another shape; all such leaves are listed.
    """
    own, other = paths.flatten(params), paths.flatten(_layered_alike(params, source))
    loaded = tuple(path for path in own if path in other)
    if not loaded:
        raise ConfigError(
            f"warm start: none of {len(own)} leaves is in the source; nearest to {next(iter(own))!r}: "
            f"{paths.suggestion(next(iter(own)), other)}"
        )
    wrong = [
        f"{p}: {other[p].shape} in the source, {own[p].shape} here" for p in loaded if own[p].shape != other[p].shape
    ]
    if wrong:
        raise ConfigError("warm start: leaves of another shape:\n  " + "\n  ".join(wrong))
    return WarmStart(
        params=paths.unflatten({path: other.get(path, leaf) for path, leaf in own.items()}),
        loaded=loaded,
        kept=tuple(path for path in own if path not in other),
        unused=tuple(path for path in other if path not in own),
    )


def _layered_alike(params: Params, source: Mapping[str, Any]) -> dict[str, Any]:
    """`source` with its layers stacked or unstacked as those of `params` are."""
    if "blocks" in params and "block_0" in source:
        source = stack_layers(source)
    elif "block_0" in params and "blocks" in source:
        source = unstack_layers(source)
    return {
        name: _layered_alike(params[name], value) if isinstance(value, Mapping) and name in params else value
        for name, value in source.items()
    }

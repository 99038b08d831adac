"""Parameters that a run starts from: whole towers of earlier runs."""

from collections.abc import Mapping
from typing import Any

from mmjax import paths
from mmjax.config import ConfigError
from mmjax.train.workdir import load_run


def init_from(towers: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that `config.init_from` names, for `warm_start`.

    Args:
      towers: name of a tower, such as "image" -> workdir, or one checkpoint, of the run to take it from.

    Returns:
      A tree of those towers alone.

    Raises:
      ConfigError: a run has no such tower.
      CheckpointError: a folder is no run, or holds no checkpoint.
    """
    params = {}
    for name, folder in towers.items():
        found = load_run(folder).params
        if name not in found:
            raise ConfigError(f"config.init_from.{name}: {folder} has no {name!r}; {paths.suggestion(name, found)}")
        params[name] = found[name]
    return params

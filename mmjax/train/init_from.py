"""What a run starts from: whole towers of earlier runs, their parameters and all that goes with them."""

import pathlib
from collections.abc import Mapping
from typing import Any

from mmjax import paths
from mmjax.config import ConfigError, Section, difference
from mmjax.models import describe_model
from mmjax.train.workdir import Settings, load_run, load_settings, taken_settings

# How a tower is computed, and not what it is: each run decides for itself.
_FREE = ("dtype", "remat", "scan", "attention", "dropout_rate", "patch_dropout")


def init_from(towers: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that `config.init_from` names, for `warm_start`.

    Args:
      towers: name of a tower or head, such as "image" -> workdir, or one checkpoint, of the run to take it from.

    Returns:
      A tree of those towers alone.

    Raises:
      ConfigError: a run has no such tower.
      CheckpointError: a folder is no run, or holds no checkpoint.
    """
    params = {}
    for name, folder in towers.items():
        found = load_run(folder).params
        _check_there(name, folder, found)
        params[name] = found[name]
    return params


def fill_settings(config: Section, workdir: pathlib.Path) -> dict[str, Any]:
    """Adds to a config what comes with the towers of `config.init_from`, where it does not say otherwise.

    A tower comes with its own settings (`model.<name>`), pictures with their preprocessing (`data.image`), texts with
    tokenizer and context length (`data.tokenizer`, `data.context_length`). A workdir that holds the run already gives
    what was taken then, and the runs that it came from may be gone.

    Args:
      config: of the run that starts.
      workdir: its folder.

    Returns:
      What was added, or would have been; `workdir` keeps it for `load_run`.

    Raises:
      ConfigError: the config describes a tower as another than it is, or has a tokenizer beside that of its tower.
      CheckpointError: a folder is no run.
    """
    if (workdir / "config.json").exists():
        settings = taken_settings(workdir)
    else:
        towers = {name: (folder, load_settings(folder)) for name, folder in config.get("init_from", {}).items()}
        settings = _settings(towers, picture_size=config.plain().get("data", {}).get("image", {}).get("size"))
        _check_agrees(config, settings, towers)
    config.fill(settings)
    return settings


def _settings(towers: Mapping[str, tuple[str, Settings]], *, picture_size: int | None) -> dict[str, Any]:
    model: dict[str, Any] = {}
    data: dict[str, Any] = {}
    for name, (folder, run) in towers.items():
        parts = {part: fields for part, fields in describe_model(run.model).items() if isinstance(fields, Mapping)}
        _check_there(name, folder, parts)
        model[name] = {field: value for field, value in parts[name].items() if field not in _FREE}
        if name == "image" and run.image is not None:
            # Pictures of a size of the config's own are cut as the run cuts its own.
            data["image"] = (run.image if picture_size is None else run.image.at(picture_size)).to_dict()
        if name == "text" and run.tokenizer is not None:
            data["tokenizer"] = {"file": str(run.workdir / "tokenizer.json")}
        if name == "text" and run.context_length is not None:
            data["context_length"] = run.context_length
    return {"model": model, "data": data}


def _check_there(name: str, folder: str, there: Mapping[str, Any]) -> None:
    if name not in there:
        raise ConfigError(f"config.init_from.{name}: {folder} has no {name!r}; {paths.suggestion(name, there)}")


def _check_agrees(config: Section, settings: Mapping[str, Any], towers: Mapping[str, tuple[str, Settings]]) -> None:
    asked = config.plain()
    for name, taken in settings["model"].items():
        own = {field: value for field, value in asked.get("model", {}).get(name, {}).items() if field in taken}
        if lines := difference({field: taken[field] for field in own}, own):
            raise ConfigError(
                f"config.model.{name} is not the {name} of {towers[name][0]}, which config.init_from takes (run -> "
                f"config): {'; '.join(lines)}; leave these settings out"
            )
    if "tokenizer" in settings["data"] and "tokenizer" in asked.get("data", {}):
        raise ConfigError(
            f"config.data.tokenizer is set, but config.init_from.text takes a tower that reads the token ids of "
            f"{settings['data']['tokenizer']['file']}; leave data.tokenizer out"
        )

"""What a config asks for: its stages, and how many steps each makes."""

from collections.abc import Mapping
from typing import Any

from mmjax.config import ConfigError, Section


def split_stages(config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The folder and the whole config of each of `config.stages`; ("", config) alone where there are none.

    >>> split_stages({"steps": 9, "model": {"a": 1, "b": 1}, "stages": ({"name": "warm", "model": {"b": 2}},)})
    [('0_warm', {'steps': 9, 'model': {'a': 1, 'b': 2}})]
    """
    plain = {key: value for key, value in config.items() if key != "stages"}
    stages = config.get("stages") or ()
    if not stages:
        return [("", plain)]
    overrides = [{key: value for key, value in stage.items() if key != "name"} for stage in stages]
    return [(f"{i}_{stages[i]['name']}", _merge(plain, changes)) for i, changes in enumerate(overrides)]


def total_steps(config: Section, *, examples: int, batch_size: int) -> int:
    """The number of steps that `config.steps` or `config.epochs` asks for.

    Raises:
      ConfigError: both or neither are given, or it is below 1.
    """
    if ("steps" in config) == ("epochs" in config):
        raise ConfigError("config needs exactly one of steps and epochs")
    total = config.steps if "steps" in config else config.epochs * examples // batch_size
    if total < 1:
        raise ConfigError(f"config gives {total} steps: {examples} examples, batch_size {batch_size}")
    return total


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `overrides` in place of its own."""
    merged = dict(base)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merge(base[key], value) if nested else value
    return merged

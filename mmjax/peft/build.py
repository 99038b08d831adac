"""Adapters from a config: a name is a file of this folder, and its function of that name."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax import registry
from mmjax.config import ConfigError, call
from mmjax.peft.adapter import Adapter
from mmjax.peft.chain import chain


def build_adapter(config: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Adapter:
    """The adapter that a section describes: `name`, and the settings of the function of that name.

    Args:
      config: a section; or several, for adapters in a chain.

    Raises:
      ConfigError: there is no such adapter, or it has no such setting.

    >>> build_adapter({"name": "lora", "rank": 4}).name
    'lora'
    >>> build_adapter([{"name": "bitfit"}, {"name": "lora", "rank": 4}]).name
    'bitfit + lora'
    """
    if not isinstance(config, Mapping):
        return chain(*map(build_adapter, config))
    settings = dict(config)
    if "name" not in settings:
        raise ConfigError(f"an adapter needs a name, found the settings {', '.join(settings)}")
    name = settings.pop("name")
    function = getattr(registry.find("mmjax.peft", name), name, None)
    if function is None:
        raise ConfigError(f"mmjax/peft/{name}.py holds no adapter of that name")
    return call(function, settings)

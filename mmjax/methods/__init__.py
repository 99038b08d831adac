"""Published systems, one file each: `build_method(config)` finds the file by `config.method.name`."""

from typing import Any

from mmjax import registry
from mmjax.method import Method

__all__ = ["build_method"]


def build_method(config: Any) -> Method:
    """The method that `config.method.name` names: `mmjax/methods/<name>.py`, function `build(config)`.

    Args:
      config: a `mmjax.config.Section`; `method` and `model` are read.

    Raises:
      ConfigError: there is no such file, or it does not take a setting.
    """
    return registry.find("mmjax.methods", config.method.name).build(config)

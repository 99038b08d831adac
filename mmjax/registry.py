"""The folder is the registry: a short name in a config is the name of a file in a package."""

import importlib
import pkgutil
from types import ModuleType

from mmjax.config import ConfigError
from mmjax.paths import suggestion


def names(package: str) -> list[str]:
    """Public module names in the folder of `package`, sorted.

    >>> "contrastive" in names("mmjax.losses")
    True
    """
    folder = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(folder) if not module.name.startswith("_"))


def find(package: str, name: str) -> ModuleType:
    """The module `name` of `package`.

    Raises:
      ConfigError: there is no such file; the message lists those that exist.

    >>> find("mmjax.losses", "contrastve")
    Traceback (most recent call last):
    mmjax.config.ConfigError: mmjax/losses has no 'contrastve'; did you mean 'contrastive'?
    """
    known = names(package)
    if name not in known:
        raise ConfigError(f"{package.replace('.', '/')} has no {name!r}; {suggestion(name, known)}")
    return importlib.import_module(f"{package}.{name}")

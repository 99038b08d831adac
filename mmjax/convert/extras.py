"""Packages of the optional extras, imported where they are used."""

import importlib
from types import ModuleType


class MissingExtraError(ModuleNotFoundError):
    """A package of an optional extra is not installed."""


def require(package: str, *, extra: str, purpose: str) -> ModuleType:
    """The imported `package`.

    Args:
      package: its import name.
      extra: the extra of mmjax that brings it.
      purpose: what needs it, the subject of the error message.

    Raises:
      MissingExtraError: it is not installed; the message says how to install it.

    >>> require("json", extra="torch", purpose="verification").__name__
    'json'
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        message = f"{purpose} needs {package}, which is not installed: pip install 'mmjax[{extra}]'"
        raise MissingExtraError(message, name=package) from None

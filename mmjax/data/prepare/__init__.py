"""Public data made ready to train on, one file a data set: downloaded files in, a dataset folder out.

To add a data set, put a file with a function `prepare(*, source, out, ...)` in this folder.
"""

from typing import Any

from mmjax import registry
from mmjax.config import Section, call
from mmjax.data.storage import Split


def prepare(name: str, **settings: Any) -> dict[str, Split]:
    """Writes the data set `name` as a dataset folder (see `mmjax.data.storage`).

    Args:
      name: a file in this folder, such as `emoji` or `stamps`.
      **settings: the keyword arguments of that file's `prepare`, `source` and `out` among them.

    Returns:
      What was written of each split.

    Raises:
      ConfigError: there is no such file, a setting is unknown or missing; the message lists near misses.
      FileExistsError: `out` exists.

    >>> prepare("emojis", source="emoji-datasource-16.0.0.tgz", out="emoji")
    Traceback (most recent call last):
    mmjax.config.ConfigError: mmjax/data/prepare has no 'emojis'; did you mean 'emoji'?
    """
    return call(registry.find(__name__, name).prepare, Section(settings, f"prepare {name!r}"))


__all__ = ["prepare"]

"""Sources of records, one file a form: `build_source("jsonl", path=...)` calls `jsonl.build(path=...)`.

To add a form, put a file with a function `build(**settings)` in this folder.
"""

from typing import Any

from mmjax import registry
from mmjax.config import Section, call


def build_source(name: str, **settings: Any) -> Any:
    """The source `name` of records: `len(source)`, `source[index] -> dict`.

    Args:
      name: a file in this folder, such as `jsonl`, `csv`, `webdataset`, `arrayrecord` or `tfds`.
      **settings: the keyword arguments of that file's `build`.

    Returns:
      A random-access sequence of records (see `mmjax.data.records`).

    Raises:
      ConfigError: there is no such file, a setting is unknown or missing; the message lists near misses.
      FileNotFoundError: the data is not there.

    >>> build_source("jsnl", path="train.jsonl")
    Traceback (most recent call last):
    mmjax.config.ConfigError: mmjax/data/sources has no 'jsnl'; did you mean 'jsonl'?
    """
    return call(registry.find(__name__, name).build, Section(settings, f"source {name!r}"))


__all__ = ["build_source"]

"""What a run's config evaluates: the data that a report shows, and the protocol in words."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax import registry
from mmjax.data.sources import build_source
from mmjax.paths import suggestion


class HeldOut(NamedTuple):
    """Pictures with captions to show.

    Attributes:
      source: random access to records.
      words: name and settings of the source, for the reader.
      group: field whose equal values make records belong together; None makes a record belong to itself alone.
      max_records: the first records only; None takes all.
    """

    source: Sequence[Mapping[str, Any]]
    words: str
    group: str | None = None
    max_records: int | None = None


class Protocol(NamedTuple):
    """An evaluation of the config: its name, its kind, its data in words, and its other settings."""

    name: str
    kind: str
    data: str | None
    settings: Mapping[str, Any]


def held_out(evals: Mapping[str, Any], name: str | None = None) -> HeldOut | None:
    """The data of an evaluation.

    Args:
      evals: section of the config.
      name: of the evaluation; None takes the first retrieval.

    Returns:
      None where `name` is None and there is no retrieval.

    Raises:
      ValueError: there is no evaluation `name` with data.
    """
    if name is None:
        name = next((name for name, settings in evals.items() if settings.get("kind", name) == "retrieval"), None)
        if name is None:
            return None
    known = [name for name, settings in evals.items() if "data" in settings]
    if name not in known:
        raise ValueError(f"held_out: the config has no evaluation {name!r} with data; {suggestion(name, known)}")
    settings, data = evals[name], evals[name]["data"]
    return HeldOut(build_source(**data), in_words(data), settings.get("group"), settings.get("max_records"))


def protocols(evals: Mapping[str, Any]) -> list[Protocol]:
    """Each evaluation of a config section with all settings that bear on its numbers, defaults included."""
    described = []
    for name, given in evals.items():
        kind = given.get("kind", name)
        build = registry.find("mmjax.evaluate.protocols", kind).build
        parameters = inspect.signature(build).parameters.values()
        settings = {p.name: given.get(p.name, p.default) for p in parameters if p.default is not p.empty}
        settings = {key: value for key, value in settings.items() if value is not None and key != "chunk"}
        described.append(Protocol(name, kind, in_words(given["data"]) if "data" in given else None, settings))
    return described


def in_words(data: Mapping[str, Any]) -> str:
    """A source's name and settings on one line.

    >>> in_words({"name": "shapes", "split": "test", "num_records": 64})
    'shapes (split test, num_records 64)'
    """
    settings = ", ".join(f"{key} {value}" for key, value in data.items() if key != "name")
    return f"{data['name']} ({settings})" if settings else data["name"]

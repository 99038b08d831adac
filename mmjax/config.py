"""A view of a config that remembers what was read: a key that nobody read is an error and not a silence."""

import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from mmjax import paths

T = TypeVar("T")


class ConfigError(ValueError):
    """A config key or value is wrong; the message names the key and the fix."""


class Section(Mapping[str, Any]):
    """A read-only section of a config.

    Keys read by attribute, index, `get`, items or `call` count as read; `unread` lists the others.

    >>> config = Section({"seed": 1, "optimizer": {"name": "adamw", "lerning_rate": 0.1}})
    >>> config.seed, config.optimizer.name, config.optimizer.get("learning_rate", 1e-3)
    (1, 'adamw', 0.001)
    >>> config.unread()
    ['config.optimizer.lerning_rate']
    """

    def __init__(self, values: Mapping[str, Any], name: str = "config"):
        self._name = name
        self._values = {k: Section(v, f"{name}.{k}") if isinstance(v, Mapping) else v for k, v in values.items()}
        self._read: set[str] = set()
        self._asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._asked.add(key)
        if key not in self._values:
            raise KeyError(f"{self._name} has no key {key!r}; {paths.suggestion(key, self._values)}")
        self._read.add(key)
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError as error:
            raise ConfigError(error.args[0]) from None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        self._asked.add(key)
        return self[key] if key in self._values else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Section({self._name}: {', '.join(self._values)})"

    def fill(self, values: Mapping[str, Any]) -> None:
        """Adds the keys of `values` that the section lacks, nested sections likewise."""
        for key, value in values.items():
            if isinstance(value, Mapping):
                self._values.setdefault(key, Section({}, f"{self._name}.{key}")).fill(value)
            else:
                self._values.setdefault(key, value)

    def plain(self) -> dict[str, Any]:
        """The section as nested dicts, without counting as a read."""
        return {k: v.plain() if isinstance(v, Section) else v for k, v in self._values.items()}

    def read_all(self) -> dict[str, Any]:
        """The section as nested dicts, every key read."""
        self._read.update(self._values)
        return {k: v.read_all() if isinstance(v, Section) else v for k, v in self._values.items()}

    def unread(self) -> list[str]:
        """Full names of the keys nobody read."""
        names = []
        for key, value in self._values.items():
            if isinstance(value, Section) and key in self._read:
                names += value.unread()
            elif key not in self._read:
                names.append(f"{self._name}.{key}")
        return names

    def check_read(self) -> None:
        """Raises ConfigError when a key was never read, with near misses among the keys asked for."""
        unread = self.unread()
        if unread:
            lines = [f"{name} ({self._near(name)})" for name in unread]
            raise ConfigError(f"config keys that nothing reads: {'; '.join(lines)}")

    def _near(self, name: str) -> str:
        section, key = self, name.rsplit(".", 1)[1]
        for part in name.split(".")[1:-1]:
            section = section._values[part]
        near = difflib.get_close_matches(key, section._asked, n=2, cutoff=0.5)
        return f"did you mean {' or '.join(near)}?" if near else "remove it"


def call(function: Callable[..., T], section: Mapping[str, Any], *args: Any, **extra: Any) -> T:
    """`function(*args, **section, **extra)` with the function's signature as the schema of the section.

    Args:
      function: its keyword arguments are the keys that the section may hold.
      section: a `Section` or any mapping.
      *args: positional arguments.
      **extra: further keyword arguments.

    Raises:
      ConfigError: a key is no argument of the function, or an argument without default is missing.

    >>> def crop(image, *, size, scale=1.0): return (image, size, scale)
    >>> call(crop, {"size": 32}, "image")
    ('image', 32, 1.0)
    >>> call(crop, {"sise": 32}, "image")
    Traceback (most recent call last):
    mmjax.config.ConfigError: crop has no setting 'sise'; did you mean 'size' or 'scale'?
    """
    name = section._name if isinstance(section, Section) else getattr(function, "__name__", "function")
    values = section.read_all() if isinstance(section, Section) else dict(section)
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not open_ended:
        free = [p.name for p in list(parameters.values())[len(args) :] if p.name not in extra]
        for key in values:
            if key not in free:
                raise ConfigError(f"{name} has no setting {key!r}; {paths.suggestion(key, free)}")
        missing = [
            p.name
            for p in list(parameters.values())[len(args) :]
            if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in {**values, **extra}
        ]
        if missing:
            raise ConfigError(f"{name} lacks the setting{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}")
    return function(*args, **values, **extra)


def to_json(values: Mapping[str, Any]) -> str:
    """A config as indented JSON; tuples become lists."""
    return json.dumps(values.plain() if isinstance(values, Section) else values, indent=2) + "\n"


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The lines `key: old -> new` of every leaf in which two configs differ, after JSON's view of values.

    >>> difference({"a": {"b": 1, "c": (1, 2)}}, {"a": {"b": 2, "c": [1, 2]}})
    ['a.b: 1 -> 2']
    """
    old_flat, new_flat = (paths.flatten(json.loads(to_json(c))) for c in (old, new))
    keys = dict.fromkeys([*old_flat, *new_flat])
    absent = "(absent)"
    return [
        f"{key.replace('/', '.')}: {old_flat.get(key, absent)} -> {new_flat.get(key, absent)}"
        for key in keys
        if old_flat.get(key, absent) != new_flat.get(key, absent)
    ]


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """`name:setting=value,setting=value` as a name and its settings; values are JSON where they can be, else text.

    >>> parse_call("shapes:split=test,num_records=1000")
    ('shapes', {'split': 'test', 'num_records': 1000})
    """
    name, _, rest = text.partition(":")
    settings = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: {item!r} is no setting=value")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return name, settings

"""Names and keywords of emoji in many languages, from the npm package `emojibase-data`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_VARIATION_SELECTOR = "FE0F"


class Words(NamedTuple):
    """What a language has for one emoji."""

    name: str
    keywords: tuple[str, ...]


def read_words(root: Path) -> dict[str, dict[str, Words]]:
    """Words by language, then by `code_points`.

    Args:
      root: folder that holds `<language>/data.json`.
    """
    return {file.parent.name: _read(file) for file in sorted(root.glob("*/data.json"))}


def code_points(code: str) -> str:
    """The code points of an emoji with or without variation selector, which the packages set differently.

    >>> code_points("1F441-FE0F")
    '1f441'
    """
    return "-".join(part for part in code.upper().split("-") if part != _VARIATION_SELECTOR).lower()


def fields(words: Mapping[str, Mapping[str, Words]], code: str) -> dict[str, list[str]]:
    """`keywords` in English, `captions_xx` and `keywords_xx` in every other language that has the emoji."""
    found: dict[str, list[str]] = {}
    for language, table in words.items():
        entry = table.get(code_points(code))
        if entry is None:
            continue
        if language != "en":
            found[f"captions_{language}"] = [entry.name]
        if entry.keywords:
            found["keywords" if language == "en" else f"keywords_{language}"] = list(entry.keywords)
    return found


def _read(file: Path) -> dict[str, Words]:
    entries = json.loads(file.read_text("utf-8"))
    return {code_points(e["hexcode"]): Words(e["label"], tuple(e.get("tags", ()))) for e in entries}

"""An independent reader of captions, and what it means that one is true."""

import re

import pytest

from mmjax.data.shapes import Description, Thing

_THING = r"(?P<size{0}>small|large) (?P<colour{0}>\w+) (?P<shape{0}>\w+)"
_FIELD = r" on a (?P<background>\w+) field"
_SENTENCES = (
    rf"a {_THING.format(1)} (?P<form>left of|right of|above|below) a {_THING.format(2)}{_FIELD}",
    rf"(?P<form>two|three|four) {_THING.format(1)}{_FIELD}",
    rf"a {_THING.format(1)}{_FIELD}",
)
_SINGULAR = {
    "circles": "circle",
    "squares": "square",
    "triangles": "triangle",
    "diamonds": "diamond",
    "crosses": "cross",
    "stars": "star",
    "rings": "ring",
    "hearts": "heart",
}


def _parse(text: str) -> Description:
    if text.startswith("on a "):
        field, subject = text.split(", ")
        text = f"{subject} {field}"
    for sentence in _SENTENCES:
        if match := re.fullmatch(sentence, text):
            words = match.groupdict()
            break
    else:
        raise AssertionError(f"no sentence of the grammar: {text!r}")
    form = words.get("form", "one")
    if form in ("two", "three", "four"):
        words["shape1"] = _SINGULAR[words["shape1"]]
    numbers = [n for n in "12" if f"shape{n}" in words]
    things = tuple(Thing(words[f"size{n}"], words[f"colour{n}"], words[f"shape{n}"]) for n in numbers)
    return Description(form, words["background"], things)


def _holds(text: str, scene: dict) -> bool:
    claim = _parse(text)
    objects = [(Thing(o["size"], o["colour"], o["shape"]), o["centre"]) for o in scene["objects"]]
    if claim.background != scene["background"]:
        return False
    if not claim.is_pair:
        number = ("one", "two", "three", "four").index(claim.form) + 1
        return [thing for thing, _ in objects] == [claim.things[0]] * number
    relation = {
        "left of": lambda a, b: a[0] < b[0],
        "right of": lambda a, b: a[0] > b[0],
        "above": lambda a, b: a[1] < b[1],
        "below": lambda a, b: a[1] > b[1],
    }[claim.form]
    return any(
        (first, second) == claim.things and relation(here, there)
        for first, here in objects
        for second, there in objects
        if here != there
    )


@pytest.fixture(scope="session")
def parse():
    """Caption -> Description; fails on text outside the grammar."""
    return _parse


@pytest.fixture(scope="session")
def holds():
    """(caption, scene) -> whether the caption is true of the scene."""
    return _holds

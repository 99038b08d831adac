"""Every scene that the words can describe, as rows of one table."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmjax.data.shapes.hashing import code, mix
from mmjax.data.shapes.vocabulary import Thing, Vocabulary

OPPOSITE: Mapping[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "single": ("one",),
    "count": ("two", "three", "four"),
    "pair": tuple(OPPOSITE),
}
FORMS: tuple[str, ...] = tuple(form for forms in KINDS.values() for form in forms)
_KIND_OF = {form: kind for kind, forms in KINDS.items() for form in forms}

ROW = np.dtype([("form", np.uint8), ("background", np.uint8), ("first", np.uint16), ("second", np.uint16)])


class Description(NamedTuple):
    """What a picture shows, in words.

    Attributes:
      form: how many (`one` to `four` of one thing), or the relation of the first thing to the second.
      background: colour of the field.
      things: one thing, or the two of a pair in the order of the caption.
    """

    form: str
    background: str
    things: tuple[Thing, ...]

    @property
    def kind(self) -> str:
        """`single`, `count` or `pair`."""
        return _KIND_OF[self.form]

    @property
    def is_pair(self) -> bool:
        """Whether there is a relation."""
        return self.form in OPPOSITE


class Descriptions(NamedTuple):
    """All descriptions of one kind, each once and in its canonical form.

    `A left of B` and `B right of A` are one picture; the hash of the description throws the coin which of
    them is canonical. A rule instead would give hard negatives away to a reader who never sees the picture.

    Attributes:
      rows: `[K]` of `ROW`, indices into `FORMS` and into the vocabulary's backgrounds and things.
      hashes: `[K]` uint64, of the words alone: the same for every seed and for every choice of words.
    """

    rows: np.ndarray
    hashes: np.ndarray


def enumerate_descriptions(vocabulary: Vocabulary, kind: str) -> Descriptions:
    """All descriptions of one kind.

    With T things and F backgrounds, `T F` of kind `single`, `3 T F` of `count`, `2 T (T - 1) F` of `pair`.

    Args:
      vocabulary: the words.
      kind: a key of `KINDS`.

    Returns:
      Their rows and hashes.

    >>> {kind: len(enumerate_descriptions(Vocabulary(), kind).rows) for kind in KINDS}
    {'single': 768, 'count': 2304, 'pair': 195072}
    """
    count = len(vocabulary.things)
    if kind == "pair":
        # Each once, as left of right or upper above lower.
        forms = ("left of", "above")
        first, second = np.nonzero(~np.eye(count, dtype=bool))
    else:
        forms = KINDS[kind]
        first = second = np.arange(count)
    rows = np.empty((len(forms), len(vocabulary.backgrounds), len(first)), ROW)
    rows["form"] = np.array([FORMS.index(form) for form in forms])[:, None, None]
    rows["background"] = np.arange(len(vocabulary.backgrounds))[:, None]
    rows["first"], rows["second"] = first, second
    rows = rows.reshape(-1)
    hashes = _hash(rows, vocabulary)
    if kind == "pair":
        turned = hashes & 1 == 1
        opposite = np.array([FORMS.index(OPPOSITE.get(form, form)) for form in FORMS])
        form, first, second = rows["form"], rows["first"], rows["second"]
        rows["form"] = np.where(turned, opposite[form], form)
        rows["first"], rows["second"] = np.where(turned, second, first), np.where(turned, first, second)
    return Descriptions(rows, hashes)


def _hash(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    forms, backgrounds, things = (
        np.array([code(str(word)) for word in words], np.uint64)
        for words in (FORMS, vocabulary.backgrounds, vocabulary.things)
    )
    first = mix(forms[rows["form"]] + things[rows["first"]])
    return mix(first + things[rows["second"]] + backgrounds[rows["background"]])


def describe(row: np.void, vocabulary: Vocabulary) -> Description:
    """The description that a row stands for."""
    form, background, first, second = row.item()
    name = FORMS[form]
    things = vocabulary.things
    members = (things[first], things[second]) if name in OPPOSITE else (things[first],)
    return Description(name, vocabulary.backgrounds[background], members)

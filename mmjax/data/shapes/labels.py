"""Class labels of the pictures, and the prompts that name the classes."""

from collections.abc import Sequence
from itertools import product

from mmjax.data.shapes.descriptions import Description
from mmjax.data.shapes.vocabulary import Thing, Vocabulary

LABELS: tuple[str, ...] = ("shape", "colour", "size", "background")


def class_names(label: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The classes of a label: the words of the vocabulary."""
    names = {
        "shape": vocabulary.shapes,
        "colour": vocabulary.colours,
        "size": vocabulary.sizes,
        "background": vocabulary.backgrounds,
    }
    return names[label]


def class_word(label: str, description: Description) -> str:
    """The class of a picture, one that can be seen: of a pair, the left or the upper thing gives it."""
    if label == "background":
        return description.background
    return getattr(description.things[description.form in ("right of", "below")], label)


def prompts(label: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The captions of single things, with `{}` for the class.

    >>> prompts("shape", Vocabulary(colours=("red",), backgrounds=("grey",)))
    ('a small red {} on a grey field', 'a large red {} on a grey field')
    """

    def words(attribute: str) -> Sequence[str]:
        return ("{}",) if attribute == label else class_names(attribute, vocabulary)

    attributes = product(words("size"), words("colour"), words("shape"), words("background"))
    return tuple(f"a {Thing(*thing)} on a {background} field" for *thing, background in attributes)

"""Hard negatives: captions one step from the true one, grammatical, and false of the picture."""

from collections.abc import Mapping, Sequence

from mmjax.data.shapes.descriptions import KINDS, OPPOSITE, Description
from mmjax.data.shapes.layout import Placement
from mmjax.data.shapes.vocabulary import Thing, Vocabulary

# The kinds of scene in which each negative has a meaning.
NEGATIVES: Mapping[str, tuple[str, ...]] = {
    "swap_attributes": ("pair",),
    "swap_order": ("pair",),
    "replace_noun": ("single", "count", "pair"),
    "replace_attribute": ("single", "count", "pair"),
    "replace_relation": ("pair",),
    "replace_count": ("count",),
}


def make_negative(
    negative: str,
    description: Description,
    placements: Sequence[Placement],
    *,
    vocabulary: Vocabulary,
    bits: int,
) -> Description | None:
    """A description that differs from the true one in one way, and is false of the picture.

    `swap_attributes` exchanges the colours or the sizes of a pair, `swap_order` its things; `replace_noun`,
    `replace_attribute` (colour or size), `replace_relation` and `replace_count` put another word.

    Args:
      negative: a key of `NEGATIVES`.
      description: what is true.
      placements: its objects; a pair that stands askew is in two relations, and neither makes a negative.
      vocabulary: the words to choose from.
      bits: 64 random bits.

    Returns:
      The negative, or None where the scene has none: its kind is not among `NEGATIVES[negative]`, the things
      of the pair have no differing attribute to swap, or the vocabulary has no other word.
    """
    if description.kind not in NEGATIVES[negative]:
        return None
    match negative:
        case "swap_attributes":
            return _swap_attributes(description, bits)
        case "swap_order":
            return description._replace(things=description.things[::-1])
        case "replace_noun":
            return _replace_noun(description, vocabulary, bits)
        case "replace_attribute":
            return _replace_attribute(description, vocabulary, bits)
        case "replace_relation":
            return _replace_relation(description, placements, bits)
        case _:
            numbers = [number for number in KINDS["count"] if number != description.form]
            return description._replace(form=numbers[bits % len(numbers)])


def _swap_attributes(description: Description, bits: int) -> Description | None:
    first, second = description.things
    swapped = [
        (first._replace(colour=second.colour), second._replace(colour=first.colour)),
        (first._replace(size=second.size), second._replace(size=first.size)),
    ]
    swapped = [things for things in swapped if things != description.things]
    return description._replace(things=swapped[bits % len(swapped)]) if swapped else None


def _replace_noun(description: Description, vocabulary: Vocabulary, bits: int) -> Description | None:
    bits, place = divmod(bits, len(description.things))
    thing = description.things[place]
    return _replace_thing(description, place, [thing._replace(shape=s) for s in vocabulary.shapes], bits)


def _replace_attribute(description: Description, vocabulary: Vocabulary, bits: int) -> Description | None:
    bits, place = divmod(bits, len(description.things))
    bits, recolour = divmod(bits, 2)
    thing = description.things[place]
    sizes = [thing._replace(size=s) for s in vocabulary.sizes]
    colours = [thing._replace(colour=c) for c in vocabulary.colours]
    if recolour:
        sizes, colours = colours, sizes
    # The only other size may be what the pair's other thing looks like; then a colour has to serve.
    return _replace_thing(description, place, sizes, bits) or _replace_thing(description, place, colours, bits)


def _replace_thing(description: Description, place: int, choices: Sequence[Thing], bits: int) -> Description | None:
    # Nothing in the picture may look like the new thing.
    choices = [thing for thing in choices if thing not in description.things]
    if not choices:
        return None
    things = list(description.things)
    things[place] = choices[bits % len(choices)]
    return description._replace(things=tuple(things))


def _replace_relation(description: Description, placements: Sequence[Placement], bits: int) -> Description:
    (x, y), (other_x, other_y) = (placement.centre for placement in placements)
    holds = {"left of": x < other_x, "right of": x > other_x, "above": y < other_y, "below": y > other_y}
    relations = [relation for relation in OPPOSITE if not holds[relation]]
    return description._replace(form=relations[bits % len(relations)])

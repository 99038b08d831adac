import itertools

import pytest

from mmjax.data.shapes import (
    KINDS,
    NEGATIVES,
    Description,
    Layout,
    Thing,
    Vocabulary,
    caption,
    make_negative,
    scene,
)
from mmjax.data.shapes.hashing import mix

VOCABULARY = Vocabulary(shapes=("cross", "ring", "star"), colours=("red", "blue", "pink"), backgrounds=("grey",))
THINGS = VOCABULARY.things[::4]


def scenes(kind):
    layout = Layout(32)
    choices = itertools.permutations(THINGS, 2) if kind == "pair" else [(thing,) for thing in THINGS]
    for number, (things, form) in enumerate(itertools.product(choices, KINDS[kind])):
        description = Description(form, "grey", things)
        yield description, layout(description, mix(number)), mix(-number)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negative", NEGATIVES)
def test_a_negative_is_grammatical_and_false(negative, kind, parse, holds):
    found = 0
    for description, placements, bits in scenes(kind):
        picture = scene(description, placements)
        assert holds(caption(description), picture)
        wrong = make_negative(negative, description, placements, vocabulary=VOCABULARY, bits=bits)
        if wrong is not None:
            found += 1
            assert parse(caption(wrong)) == wrong
            assert not holds(caption(wrong), picture)
            assert set(wrong.things) <= set(VOCABULARY.things)
    assert (found > 0) == (kind in NEGATIVES[negative])


def differences(one, other):
    return [name for name in Thing._fields if getattr(one, name) != getattr(other, name)]


@pytest.mark.parametrize(
    ("negative", "allowed"), [("replace_noun", {"shape"}), ("replace_attribute", {"size", "colour"})]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_replacement_changes_one_word(negative, allowed, kind):
    changed = set()
    for description, placements, bits in scenes(kind):
        wrong = make_negative(negative, description, placements, vocabulary=VOCABULARY, bits=bits)
        assert (wrong.form, wrong.background) == (description.form, description.background)
        (change,) = itertools.chain(*map(differences, description.things, wrong.things))
        changed.add(change)
    assert changed == allowed


def test_swapped_attributes_change_owner():
    swapped = set()
    for description, placements, bits in scenes("pair"):
        wrong = make_negative("swap_attributes", description, placements, vocabulary=VOCABULARY, bits=bits)
        first, second = description.things
        if (first.size, first.colour) == (second.size, second.colour):
            assert wrong is None
            continue
        (changed,) = {*differences(first, wrong.things[0]), *differences(second, wrong.things[1])}
        swapped.add(changed)
        assert getattr(wrong.things[0], changed) == getattr(second, changed)
        assert getattr(wrong.things[1], changed) == getattr(first, changed)
    assert swapped == {"size", "colour"}


def test_swapped_order_exchanges_the_things():
    for description, placements, bits in scenes("pair"):
        wrong = make_negative("swap_order", description, placements, vocabulary=VOCABULARY, bits=bits)
        assert wrong == description._replace(things=description.things[::-1])


@pytest.mark.parametrize(("negative", "kind"), [("replace_relation", "pair"), ("replace_count", "count")])
def test_another_relation_or_count_of_the_same_things(negative, kind):
    for description, placements, bits in scenes(kind):
        wrong = make_negative(negative, description, placements, vocabulary=VOCABULARY, bits=bits)
        assert wrong.things == description.things
        assert wrong.form in set(KINDS[kind]) - {description.form}


def test_a_size_that_would_describe_the_other_thing_gives_way_to_a_colour():
    pair = Description("above", "grey", (Thing("small", "red", "star"), Thing("large", "red", "star")))
    placements = Layout(32)(pair, 0)
    for bits in range(16):
        wrong = make_negative("replace_attribute", pair, placements, vocabulary=VOCABULARY, bits=bits)
        assert [differences(*pair) for pair in zip(pair.things, wrong.things, strict=True)].count(["colour"]) == 1


def test_without_another_word_there_is_no_negative():
    lonely = Vocabulary(shapes=("star",), colours=("red",), backgrounds=("grey",))
    pair = Description("above", "grey", lonely.things)
    for negative in ("replace_noun", "replace_attribute"):
        assert make_negative(negative, pair, Layout(32)(pair, 0), vocabulary=lonely, bits=0) is None

import pytest

from mmjax.data.shapes import (
    KINDS,
    Description,
    Thing,
    Vocabulary,
    caption,
    describe,
    enumerate_descriptions,
    mirror,
    paraphrases,
)

SMALL = Vocabulary(shapes=("cross", "heart"), colours=("red", "blue"), backgrounds=("grey", "white"))
CROSS, HEART = Thing("small", "red", "cross"), Thing("large", "blue", "heart")


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (Description("one", "grey", (CROSS,)), "a small red cross on a grey field"),
        (Description("two", "grey", (CROSS,)), "two small red crosses on a grey field"),
        (Description("four", "white", (HEART,)), "four large blue hearts on a white field"),
        (
            Description("below", "grey", (HEART, CROSS)),
            "a large blue heart below a small red cross on a grey field",
        ),
    ],
)
def test_caption(description, expected):
    assert caption(description) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_reads_back_as_its_description(kind, parse):
    for row in enumerate_descriptions(SMALL, kind).rows:
        description = describe(row, SMALL)
        assert parse(caption(description)) == description


@pytest.mark.parametrize("kind", KINDS)
def test_paraphrases_read_back_as_the_description_or_its_mirror(kind, parse):
    for row in enumerate_descriptions(SMALL, kind).rows[::5]:
        description = describe(row, SMALL)
        forms = {description, mirror(description)} if kind == "pair" else {description}
        texts = paraphrases(description)
        assert texts[0] == caption(description)
        assert len(set(texts)) == len(texts) == 2 * len(forms)
        assert {parse(text) for text in texts} == forms


def test_mirror_twice_is_the_same():
    pair = Description("left of", "grey", (CROSS, HEART))
    assert mirror(pair) == Description("right of", "grey", (HEART, CROSS))
    assert mirror(mirror(pair)) == pair

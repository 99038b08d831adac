import pytest

from mmjax.data.shapes import LABELS, Description, Thing, Vocabulary, class_names, class_word, prompts

CROSS, HEART = Thing("small", "red", "cross"), Thing("large", "blue", "heart")


@pytest.mark.parametrize(
    ("label", "one", "other"),
    [("shape", "cross", "heart"), ("colour", "red", "blue"), ("size", "small", "large")],
)
def test_the_left_or_upper_thing_gives_the_class(label, one, other):
    for form, expected in (("left of", one), ("above", one), ("right of", other), ("below", other)):
        assert class_word(label, Description(form, "grey", (CROSS, HEART))) == expected
    assert class_word(label, Description("one", "grey", (CROSS,))) == one
    assert class_word(label, Description("three", "grey", (HEART,))) == other


def test_the_field_gives_its_colour():
    assert class_word("background", Description("above", "navy", (CROSS, HEART))) == "navy"


@pytest.mark.parametrize("label", LABELS)
def test_prompts_of_all_classes_are_all_captions_of_single_things(label, parse):
    vocabulary = Vocabulary(shapes=("cross", "ring"), colours=("red", "blue"), backgrounds=("grey", "navy"))
    texts = [p.format(name) for p in prompts(label, vocabulary) for name in class_names(label, vocabulary)]
    described = {parse(text) for text in texts}
    assert len(described) == len(texts) == len(vocabulary.things) * 2
    for template in prompts(label, vocabulary):
        for name in class_names(label, vocabulary):
            assert class_word(label, parse(template.format(name))) == name

import numpy as np
import pytest

from mmjax.data.shapes import KINDS, SPLITS, Vocabulary, describe, enumerate_descriptions, split_of


@pytest.mark.parametrize("kind", KINDS)
def test_captions_holdout_keeps_a_tenth_for_each_evaluation_split(kind):
    descriptions = enumerate_descriptions(Vocabulary(), kind)
    shares = np.bincount(split_of(descriptions, Vocabulary())) / len(descriptions.rows)
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03 if kind != "pair" else 0.003)


@pytest.mark.parametrize("kind", KINDS)
def test_combinations_holdout_never_trains_on_a_held_out_combination(kind):
    vocabulary = Vocabulary()
    descriptions = enumerate_descriptions(vocabulary, kind)
    splits = split_of(descriptions, vocabulary, holdout="combinations")
    seen = {name: set() for name in SPLITS}
    for row, split in zip(descriptions.rows[::7], splits[::7], strict=True):
        combinations = {(thing.colour, thing.shape) for thing in describe(row, vocabulary).things}
        seen[SPLITS[split]].add(frozenset(combinations))
    trained = frozenset().union(*seen["train"])
    assert len(trained) == 8 * 8 - 2 * 8
    assert {colour for colour, _ in trained} == set(vocabulary.colours)
    assert {shape for _, shape in trained} == set(vocabulary.shapes)
    for split in ("validation", "test"):
        assert all(combinations - trained for combinations in seen[split])


def test_a_held_out_combination_is_held_out_whatever_the_words():
    few = Vocabulary(shapes=("heart",), colours=("red", "orange"))
    descriptions = enumerate_descriptions(few, "single")
    splits = split_of(descriptions, few, holdout="combinations")
    colours = [describe(row, few).things[0].colour for row in descriptions.rows]
    assert {colour for colour, split in zip(colours, splits, strict=True) if split == 2} == {"orange"}

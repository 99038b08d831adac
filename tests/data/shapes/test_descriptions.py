import numpy as np
import pytest

from mmjax.data.shapes import KINDS, Vocabulary, caption, describe, enumerate_descriptions, mirror

SMALL = Vocabulary(shapes=("cross", "ring"), colours=("red", "blue"), backgrounds=("grey", "white", "navy"))


def described(vocabulary, kind):
    return [describe(row, vocabulary) for row in enumerate_descriptions(vocabulary, kind).rows]


@pytest.mark.parametrize(("kind", "count"), [("single", 8 * 3), ("count", 3 * 8 * 3), ("pair", 2 * 8 * 7 * 3)])
def test_every_description_comes_once(kind, count):
    captions = {caption(description) for description in described(SMALL, kind)}
    assert len(captions) == len(described(SMALL, kind)) == count


@pytest.mark.parametrize("kind", KINDS)
def test_descriptions_are_of_the_kind_asked_for(kind):
    assert {description.kind for description in described(SMALL, kind)} == {kind}
    assert {description.form for description in described(SMALL, kind)} == set(KINDS[kind])


def test_a_pair_has_one_of_its_two_forms():
    pairs = set(described(SMALL, "pair"))
    assert not pairs & {mirror(pair) for pair in pairs}
    assert all(pair.things[0] != pair.things[1] for pair in pairs)


def test_the_two_forms_are_equally_frequent():
    forms = np.array([pair.form for pair in described(Vocabulary(shapes=("star", "ring")), "pair")])
    turned = np.isin(forms, ["right of", "below"])
    assert turned.mean() == pytest.approx(0.5, abs=0.02)


def test_the_default_words_give_hundreds_of_thousands_of_captions():
    # 128 things on 6 backgrounds.
    total = sum(len(enumerate_descriptions(Vocabulary(), kind).rows) for kind in KINDS)
    assert total == 6 * (128 + 3 * 128 + 2 * 128 * 127) == 198_144


@pytest.mark.parametrize("kind", KINDS)
def test_hashes_belong_to_the_words_and_not_to_the_vocabulary(kind):
    few = Vocabulary(shapes=("ring",), colours=("blue", "red"), backgrounds=("navy",))

    def table(vocabulary):
        descriptions = enumerate_descriptions(vocabulary, kind)
        names = [caption(describe(row, vocabulary)) for row in descriptions.rows]
        return dict(zip(names, descriptions.hashes.tolist(), strict=True))

    assert table(few).items() <= table(SMALL).items()


def test_hashes_of_the_default_words_are_all_different():
    hashes = np.concatenate([enumerate_descriptions(Vocabulary(), kind).hashes for kind in KINDS])
    assert len(np.unique(hashes)) == len(hashes)

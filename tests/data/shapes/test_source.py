import collections
import itertools
import pickle
import zlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmjax.data.shapes import BACKGROUNDS, COLOURS, KINDS, LABELS, NEGATIVES, Vocabulary, enumerate_descriptions
from mmjax.data.sources.shapes import build

# Both kinds of hold-out find something among these words.
SMALL = {"shapes": ("ring", "heart"), "colours": ("blue", "orange", "yellow"), "backgrounds": ("grey", "white")}
ALL_NEGATIVES = tuple(NEGATIVES)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_record_is_a_function_of_seed_and_index(split):
    settings = {"split": split, "seed": 3, "segmentation": True, "negatives": ALL_NEGATIVES}
    source = build(**settings)
    forwards = [source[i] for i in range(20)]
    for i in reversed(range(20)):
        assert_same(build(**settings)[np.int64(i)], forwards[i])
    assert_same(pickle.loads(pickle.dumps(source))[7], forwards[7])
    assert build(split=split, seed=4)[7]["captions"] != forwards[7]["captions"]


def test_more_records_leave_the_first_ones_as_they_are():
    for split in ("train", "test"):
        assert_same(build(split=split, num_records=20)[19], build(split=split, num_records=900)[19])


def test_the_picture_is_the_same_on_every_machine():
    source = build(split="validation", seed=5, overlap=0.3, image_size=40)
    checksum = 0
    for i in range(50):
        checksum = zlib.crc32(source[i]["image"].tobytes() + source[i]["captions"][0].encode(), checksum)
    assert checksum == 106983223


def test_record_fields():
    source = build(seed=1)
    record = source[12]
    assert set(record) == {"image", "captions", "label", "id", "scene"}
    assert (record["image"].shape, record["image"].dtype) == ((32, 32, 3), np.uint8)
    assert record["id"] == "shapes/train/1/12"
    assert source.synthetic
    assert build(image_size=224)[0]["image"].shape == (224, 224, 3)


def nearest(palette, colours):
    colour = np.median(colours, axis=0)
    return min(palette, key=lambda name: np.sum((np.array(palette[name]) - colour) ** 2))


@pytest.mark.parametrize("image_size", [32, 64])
def test_captions_are_true_of_the_pixels(image_size, parse):
    source = build(seed=2, segmentation=True, kinds=dict.fromkeys(KINDS, 1), image_size=image_size)
    for record in itertools.islice(source, 200):
        claim = parse(record["captions"][0])
        image, segments = record["image"].astype(float), record["segmentation"]
        assert nearest(BACKGROUNDS, image[segments == 0]) == claim.background
        numbers = np.unique(segments)[1:]
        assert len(numbers) == {"one": 1, "two": 2, "three": 3, "four": 4}.get(claim.form, 2)
        things = claim.things if claim.is_pair else claim.things * len(numbers)
        for number, thing in zip(numbers, things, strict=True):
            mask = segments == number
            assert nearest(COLOURS, image[mask]) == thing.colour
            extent = np.ptp(np.nonzero(mask)[0]) + 1
            assert (extent > 0.33 * image_size) == (thing.size == "large")
        if claim.is_pair:
            (y, x), (other_y, other_x) = (np.mean(np.nonzero(segments == n), axis=1) for n in numbers)
            away = {"left of": other_x - x, "right of": x - other_x, "above": other_y - y, "below": y - other_y}
            assert max(away, key=away.get) == claim.form


def test_all_captions_of_a_record_are_true_and_all_negatives_false(holds):
    source = build(seed=2, paraphrase=True, negatives=ALL_NEGATIVES)
    kinds = collections.Counter()
    for record in itertools.islice(source, 400):
        assert all(holds(text, record["scene"]) for text in record["captions"])
        assert not any(holds(text, record["scene"]) for text in record["negative_captions"])
        assert len(record["negative_kinds"]) == len(record["negative_captions"])
        kinds.update(record["negative_kinds"])
    assert set(kinds) == set(ALL_NEGATIVES)


def test_a_negative_does_not_depend_on_the_other_negatives():
    alone, among = build(negatives=("replace_noun",)), build(negatives=ALL_NEGATIVES)
    for i in range(10):
        place = among[i]["negative_kinds"].index("replace_noun")
        assert alone[i]["negative_captions"] == [among[i]["negative_captions"][place]]


@pytest.mark.parametrize("holdout", ["captions", "combinations"])
def test_no_description_is_in_two_splits_whatever_the_seeds(holdout, parse):
    def shown(split, seed, **settings):
        source = build(split=split, seed=seed, holdout=holdout, unique=False, num_records=1500, **SMALL, **settings)
        return {parse(text) for record in source for text in record["captions"]}

    # With its paraphrases, a pair in training is there from both of its things.
    train = shown("train", 0, paraphrase=True) | shown("train", 1, paraphrase=True)
    validation, test = shown("validation", 2), shown("test", 3) | shown("test", 4)
    assert len(test) > 20
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_a_split_holds_with_fewer_words(parse):
    test = {record["captions"][0] for record in build(split="test", unique=False, num_records=2000, **SMALL)}
    few = build(shapes=("heart", "ring"), colours=("yellow", "blue"), backgrounds=("white",), num_records=2000)
    assert not test & {record["captions"][0] for record in few}


def test_evaluation_records_have_all_different_captions():
    source = build(split="test")
    captions = [record["captions"][0] for record in source]
    assert len(source) == len(captions) == len(set(captions)) == 1000
    every = build(split="test", **SMALL, num_records=build(split="test", num_records=1, **SMALL).num_captions)
    assert len({record["captions"][0] for record in every}) == every.num_captions


def test_num_captions_adds_up_to_the_grammar():
    vocabulary = Vocabulary(**SMALL)
    total = sum(len(enumerate_descriptions(vocabulary, kind).rows) for kind in KINDS)
    splits = [build(split=s, num_records=1, **SMALL).num_captions for s in ("train", "validation", "test")]
    assert sum(splits) == total
    assert build().num_captions == 158_631


def test_kinds_come_by_weight(parse):
    source = build(kinds={"single": 1, "count": 3}, num_records=2000)
    kinds = collections.Counter(parse(record["captions"][0]).kind for record in source)
    assert set(kinds) == {"single", "count"}
    assert kinds["count"] / 2000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("label", LABELS)
def test_labels_index_the_class_names(label):
    source = build(label=label, num_records=300, kinds={"single": 1, "count": 1})
    for record in source:
        thing = record["scene"]["objects"][0]
        word = record["scene"]["background"] if label == "background" else thing[label]
        assert source.class_names[record["label"]] == word
    assert {record["label"] for record in source} == set(range(len(source.class_names)))
    assert all(prompt.count("{}") == 1 for prompt in source.prompts)


def test_train_is_as_long_as_you_like():
    source = build(num_records=2**62)
    assert len(source) == 2**62
    assert source[2**62 - 1]["captions"] != source[0]["captions"]
    assert len(build()) == 1_000_000


@pytest.mark.parametrize("index", [-1, 1000])
def test_an_index_outside_raises(index):
    with pytest.raises(IndexError, match=f"index {index}, expected 0 to 999"):
        build(split="test")[index]


def test_settings_may_come_from_a_config():
    config = ConfigDict({"split": "test", "num_records": 3, "kinds": {"single": 1.0}, "shapes": ("ring", "star")})
    source = build(**config)
    assert [len(record["scene"]["objects"]) for record in source] == [1, 1, 1]
    assert build(shapes=["ring", "star"]).shapes == ("ring", "star")


def test_repr_is_the_settings_and_nothing_else():
    # Iterators of a pipeline store it, to refuse another source on restore.
    assert repr(build(seed=3)) == repr(build(seed=3)) != repr(build(seed=4))
    assert "seed=3" in repr(build(seed=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "tests"}, "split has 'tests', did you mean 'test'"),
        ({"holdout": "pairs"}, "holdout has 'pairs'"),
        ({"label": "colours"}, "label has 'colours', did you mean 'colour'"),
        ({"colours": ("red", "gren")}, "colours has 'gren', did you mean 'green'"),
        ({"shapes": ()}, "shapes is \\(\\), expected at least one"),
        ({"backgrounds": ("grey", "grey")}, "none twice"),
        ({"kinds": {"pairs": 1}}, "kinds has 'pairs', did you mean 'pair'"),
        ({"kinds": {"pair": 1, "single": 0}}, "positive weights"),
        ({"negatives": ("swap_nouns",)}, "negatives has 'swap_nouns'"),
        ({"negatives": ("swap_order",), "kinds": {"single": 1}}, "needs one of the kinds pair"),
        ({"negatives": ("replace_noun",), "shapes": ("ring",)}, "shapes has 'ring' alone"),
        ({"image_size": 16}, "image_size is 16, expected at least 32"),
        ({"overlap": 0.7}, "overlap is 0.7, expected 0 to 0.5"),
        ({"num_records": 0}, "num_records is 0"),
        ({"unique": True}, "num_records is 1000000, but train has 158631"),
        (
            {"split": "test", "holdout": "combinations", "shapes": ("circle",), "colours": ("green",)},
            "no description of kind 'pair' falls into test",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)

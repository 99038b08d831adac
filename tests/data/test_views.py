"""Banks in the pipeline. The tower is the sum of the picture's corners, so that every view has its own number."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmjax.data import ImageSpec, TooManyBadRecordsError, train_batches, train_bpe
from mmjax.data.bank import BankInfo, Block, FeatureBank, StaleBankError, describe_source, write_bank
from mmjax.data.sources import build_source
from mmjax.data.views import describe_image_views, describe_text_views, view_batches

SPEC = ImageSpec(4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
TRANSFORMS = (("random_resized_crop", {"scale": (0.3, 1.0)}), "flip")
RECORDS = 20
TOKENIZER = train_bpe([f"record {number}" for number in range(RECORDS)], vocab_size=300)


def record(index):
    pixels = np.random.default_rng(index).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return {"id": str(index), "image": pixels, "captions": [f"record {index}", f"the record {index}"]}


SOURCE = [record(index) for index in range(RECORDS)]


def tower(images):
    corners = images[:, :: images.shape[1] - 1, :: images.shape[2] - 1]
    return corners.reshape(len(images), -1)


def make_bank(folder, source=SOURCE, *, epochs=1, transforms=(), seed=0, image=SPEC, max_bad_share=0.01):
    preprocessing, views = describe_image_views(image, transforms=transforms, seed=seed)
    info = BankInfo(
        modality="image",
        source={"name": "list"},
        records=len(source),
        preprocessing=preprocessing,
        views=views,
        epochs=epochs,
        tower={},
        params_hash="",
        dim=12,
    )
    batches = view_batches(
        source,
        batch_size=8,
        epochs=epochs,
        image=image,
        transforms=transforms,
        seed=seed,
        max_bad_share=max_bad_share,
    )
    rows = (
        Block(epoch, b["index"][b["mask"]], b["key"][b["mask"]], tower(b["image"])[b["mask"]]) for epoch, b in batches
    )
    write_bank(folder, rows, info=info)
    return FeatureBank(folder)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("bank") / "fixed")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_bank(tmp_path_factory.mktemp("bank") / "views", epochs=3, transforms=TRANSFORMS, seed=5)


def stream(source=SOURCE, **settings):
    defaults: dict[str, Any] = {"batch_size": 8, "image": SPEC, "tokenizer": TOKENIZER, "context_length": 24}
    return train_batches(source, **{**defaults, **settings})


def take(count=None, source=SOURCE, **settings):
    with stream(source, **settings) as batches:
        return [next(batches) for _ in range(count)] if count else list(batches)


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_views_that_are_embedded_are_those_that_training_shows():
    settings = {"transforms": TRANSFORMS, "seed": 5, "image": SPEC, "tokenizer": TOKENIZER, "context_length": 24}
    stored = {}
    for epoch, batch in view_batches(SOURCE, batch_size=8, epochs=3, **settings):
        for row in np.flatnonzero(batch["mask"]):
            stored[epoch, int(batch["index"][row])] = batch["image"][row], batch["text"][row]
    assert len(stored) == 3 * RECORDS
    assert not np.array_equal(stored[0, 0][0], stored[1, 0][0])
    with stream(**settings, epochs=3) as batches:
        shown = [row for b in batches for row in zip(b["index"], b["image"], b["text"], strict=True)]
    for number, (index, image, text) in enumerate(shown):
        np.testing.assert_array_equal(image, stored[number // RECORDS, int(index)][0])
        np.testing.assert_array_equal(text, stored[number // RECORDS, int(index)][1])


def test_a_bank_stands_in_for_the_pictures_and_changes_nothing_else(bank):
    live, banked = take(epochs=2), take(epochs=2, features={"image": bank})
    for one, other in zip(live, banked, strict=True):
        np.testing.assert_array_equal(other.pop("image_features"), tower(one.pop("image")))
    assert_equal(banked, live)


def test_stored_views_are_those_of_the_epoch_also_within_a_batch_of_two_epochs(views):
    settings = {"transforms": TRANSFORMS, "seed": 5, "epochs": 3}
    live, banked = take(**settings), take(**settings, features={"image": views})
    for one, other in zip(live, banked, strict=True):
        np.testing.assert_array_equal(other["image_features"], tower(one["image"]))


def test_pictures_are_not_decoded(bank):
    broken = [{**r, "image": b"no picture"} for r in SOURCE]
    batches = take(source=broken, epochs=1, features={"image": bank})
    assert sum(len(b["index"]) for b in batches) == RECORDS


def test_shapes_are_not_drawn(tmp_path, monkeypatch):
    source = build_source("shapes", num_records=RECORDS)
    bank = make_bank(tmp_path / "bank", source)
    expected = take(source=source, epochs=1)
    monkeypatch.setattr("mmjax.data.shapes.renderer.Renderer.image", None)
    banked = take(source=source, epochs=1, features={"image": bank})
    for one, other in zip(expected, banked, strict=True):
        np.testing.assert_array_equal(other["image_features"], tower(one["image"]))
        np.testing.assert_array_equal(other["text"], one["text"])


def test_jsonl_with_a_picture_that_cannot_be_read_is_skipped_in_both_ways(tmp_path, caplog):
    lines = []
    for index in range(10):
        Image.fromarray(SOURCE[index]["image"]).save(tmp_path / f"{index}.png")
        lines.append(json.dumps({"image": f"{index}.png", "caption": f"record {index}"}))
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    source = build_source("jsonl", path=tmp_path / "train.jsonl")
    bank = make_bank(tmp_path / "bank", source, max_bad_share=0.2)
    np.testing.assert_array_equal(np.flatnonzero(~bank.valid[0]), [3])
    live = take(source=source, epochs=2, max_bad_share=0.2)
    caplog.clear()
    with stream(source, epochs=2, max_bad_share=0.2, features={"image": bank}) as batches:
        banked = list(batches)
        assert batches.bad_records == 2
    assert "train.jsonl line 4: has no row in the feature bank" in caplog.text
    for one, other in zip(live, banked, strict=True):
        np.testing.assert_array_equal(other["index"], one["index"])
        np.testing.assert_array_equal(other["image_features"], tower(one["image"]))
    with pytest.raises(TooManyBadRecordsError, match="has no row in the feature bank"):
        take(source=source, epochs=1, max_bad_share=0.05, features={"image": bank})


def test_padding_has_no_features(bank):
    last = take(epochs=1, remainder="pad", features={"image": bank})[-1]
    assert last["mask"].sum() == RECORDS % 8
    assert np.isfinite(last["image_features"]).all()
    assert not last["image_features"][~last["mask"]].any()


@pytest.mark.parametrize("stop_at", [1, 3, 6])
def test_a_resumed_stream_goes_on_exactly(views, stop_at):
    settings = {"transforms": TRANSFORMS, "seed": 5, "features": {"image": views}, "view_epochs": 3}
    expected = take(12, **settings)
    with stream(**settings) as batches:
        for _ in range(stop_at):
            next(batches)
        state = json.loads(json.dumps(batches.get_state()))
    with stream(**settings) as batches:
        batches.set_state(state)
        assert_equal([next(batches) for _ in range(12 - stop_at)], expected[stop_at:])


@pytest.mark.slow
def test_workers_change_nothing(views):
    settings = {"transforms": TRANSFORMS, "seed": 5, "features": {"image": views}, "epochs": 3}
    assert_equal(take(**settings, num_workers=2), take(**settings))


def test_views_repeat_in_another_order_and_with_their_own_caption():
    batches = take(transforms=TRANSFORMS, view_epochs=2, epochs=4)
    rows = [row for b in batches for row in zip(b["index"], b["image"], b["text"], strict=True)]
    epochs = [
        {int(index): (image, text) for index, image, text in rows[start : start + RECORDS]} for start in (0, 20, 40, 60)
    ]
    for index in range(RECORDS):
        np.testing.assert_array_equal(epochs[2][index][0], epochs[0][index][0])
        np.testing.assert_array_equal(epochs[3][index][1], epochs[1][index][1])
    assert not all(np.array_equal(epochs[1][index][0], epochs[0][index][0]) for index in range(RECORDS))
    assert list(epochs[2]) != list(epochs[0])


def test_a_teachers_bank_stands_beside_the_pictures_of_the_same_views(tmp_path):
    larger = ImageSpec(8, mean=SPEC.mean, std=SPEC.std)
    teacher = make_bank(tmp_path / "bank", epochs=1, transforms=("flip",), image=larger)
    fields = {"features": {"teacher": teacher}, "transforms": ("flip",), "tokenizer": None, "epochs": 1}
    batches = take(**fields)
    assert set(batches[0]) == {"image", "index", "teacher_features"}
    larger_views = take(**{**fields, "features": {}, "image": larger})
    for one, other in zip(batches, larger_views, strict=True):
        np.testing.assert_array_equal(one["teacher_features"], tower(other["image"]))
    with pytest.raises(StaleBankError, match=r"views\.seed: 0 -> 1"):
        take(**{**fields, "seed": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": ImageSpec(5, mean=SPEC.mean, std=SPEC.std)}, r"preprocessing\.size: 4 -> 5"),
        ({"source": SOURCE[:19]}, "records: 20 -> 19"),
        ({"seed": 6}, r"views\.seed: 5 -> 6"),
        ({"transforms": ("flip",)}, r"views\.transforms"),
        ({}, "holds 3 epochs of random views, and the stream never ends; set view_epochs=3"),
        ({"epochs": 4}, "holds 3 epochs of random views, and the stream has 4; set view_epochs=3"),
        ({"view_epochs": 4}, "has 4; set view_epochs=3"),
    ],
)
def test_a_bank_of_something_else_is_refused(views, settings, message):
    with pytest.raises(StaleBankError, match=message):
        stream(**{"transforms": TRANSFORMS, "seed": 5, "features": {"image": views}, **settings})


def test_a_bank_may_only_stand_in_for_what_it_is_of(bank):
    with pytest.raises(StaleBankError, match=r"features\.text is .* a bank of image embeddings"):
        stream(features={"text": bank})
    with pytest.raises(ValueError, match="give the image settings too"):
        stream(features={"image": bank}, image=None)
    with pytest.raises(ValueError, match="view_epochs is 0"):
        stream(view_epochs=0)


def test_records_that_have_changed_places_are_refused(bank):
    with pytest.raises(StaleBankError, match="id or captions have changed"):
        take(source=SOURCE[::-1], epochs=1, features={"image": bank})


def test_the_seed_of_texts_counts_unless_one_caption_is_always_taken():
    settings = {"context_length": 8, "seed": 3}
    assert describe_text_views(TOKENIZER, **settings)[1] == {"caption_weights": None, "seed": 3}
    assert describe_text_views(TOKENIZER, **settings, caption_weights=(1,))[1] == {"caption_weights": [1]}
    other = train_bpe(["another"], vocab_size=300)
    assert describe_text_views(TOKENIZER, **settings)[0] != describe_text_views(other, **settings)[0]


def test_a_described_source_survives_json():
    described = describe_source("shapes", num_records=3)
    assert json.loads(json.dumps(described))["num_records"] == 3

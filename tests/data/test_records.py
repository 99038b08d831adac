import pickle

import numpy as np
import pytest

from mmjax.data.records import CorruptRecordError, RecordSource, locate, validate_record

IMAGE = np.zeros((2, 3, 3), np.uint8)


class Words(RecordSource):
    location = "words"

    def __init__(self, words):
        self.words = words

    def __len__(self):
        return len(self.words)

    def read(self, index):
        return {"captions": (self.words[index],), "note": index}

    def where(self, index):
        return f"words {index}"


@pytest.mark.parametrize("image", [IMAGE, IMAGE[..., :1], np.zeros((1, 1, 4), np.uint8), b"\x89PNG", "a/b.png"])
def test_an_image_is_an_array_bytes_or_a_path(image):
    assert validate_record({"image": image}, where="x")["image"] is image


def test_types_become_plain():
    record = {"captions": ("a dog", "a pet"), "label": np.int32(4), "id": "7", "extra": {"any": None}}
    valid = validate_record(record, where="x")
    assert valid == {"captions": ["a dog", "a pet"], "label": 4, "id": "7", "extra": {"any": None}}
    assert type(valid["label"]) is int
    assert record["captions"] == ("a dog", "a pet")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"label": 3}, "neither image nor captions among its fields (label)"),
        ({}, "neither image nor captions among its fields (none)"),
        ([1], "a record is a mapping of fields, found list [1]"),
        ({"captions": 7}, "captions is int 7, expected a list of strings"),
        ({"captions": "a dog"}, "captions is str 'a dog', expected a list"),
        ({"captions": []}, "captions is an empty list"),
        ({"captions": ["a dog", 3]}, "caption 1 is int 3"),
        ({"captions": ["a dog", " \n"]}, "caption 1 is str"),
        ({"image": IMAGE.astype(np.float32)}, "float32 array of shape (2, 3, 3)"),
        ({"image": IMAGE[0]}, "uint8 array of shape (3, 3)"),
        ({"image": np.zeros((2, 2, 2), np.uint8)}, "array of shape (2, 2, 2)"),
        ({"image": np.zeros((0, 2, 3), np.uint8)}, "array of shape (0, 2, 3)"),
        ({"image": b""}, "image is an empty bytes"),
        ({"image": ""}, "image is an empty str"),
        ({"image": 3}, "image is int 3"),
        ({"image": b"x", "label": True}, "label is bool True"),
        ({"image": b"x", "label": 1.0}, "label is float 1.0"),
        ({"image": b"x", "label": -1}, "label is int -1"),
        ({"image": b"x", "id": 3}, "id is int 3"),
        ({"image": b"x", "id": ""}, "id is str ''"),
    ],
)
def test_a_broken_record_says_where_and_why(record, reason):
    with pytest.raises(CorruptRecordError) as caught:
        validate_record(record, where="train.jsonl line 4")
    assert caught.value.where == "train.jsonl line 4"
    assert reason in caught.value.reason
    assert str(caught.value).startswith("train.jsonl line 4: ")


def test_long_values_are_cut_in_messages():
    with pytest.raises(CorruptRecordError) as caught:
        validate_record({"captions": "x" * 10_000}, where="here")
    assert len(str(caught.value)) < 200


def test_the_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(CorruptRecordError("a.tar key 3", "no picture")))
    assert (error.where, error.reason) == ("a.tar key 3", "no picture")


def test_a_source_gives_valid_records_and_stops():
    source = Words(["cat", "dog"])
    assert source[np.int64(1)] == {"captions": ["dog"], "note": 1}
    assert [record["captions"] for record in source] == [["cat"], ["dog"]]
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"words: record {index} of 2"):
            source[index]
    with pytest.raises(CorruptRecordError, match="words 0: caption 0 is str ''"):
        Words([""])[0]


def test_locate_asks_the_source():
    assert locate(Words(["cat"]), 0) == "words 0"
    assert locate([{"captions": ["cat"]}], 3) == "list record 3"


def test_a_source_has_one_name_in_every_process():
    assert repr(Words(["cat"])) == "Words('words', records=1)"

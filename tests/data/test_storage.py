import json
import pickle

import msgpack
import numpy as np
import pytest

from mmjax.data.records import CorruptRecordError
from mmjax.data.storage import DatasetInfo, Split, decode_record, encode_record, read_info, write_dataset

INFO = DatasetInfo("pets", "CC0-1.0", "made up", synthetic=True, class_names=("cat", "dog"), notes={"left out": 2})
CAT = {"image": b"cat", "captions": ["a cat"], "label": 0}
DOG = {"image": b"dog", "captions": ["a dog"], "label": 1}


def write(out, splits, **settings):
    return write_dataset(out, splits, info=INFO, licence_files={"LICENSE": "Do as you like."}, **settings)


@pytest.mark.parametrize(
    "value",
    ["Öl", 2**63, -1, 0.1, True, None, b"\x00\xff", ["a", [1, None]], {"a": {"b": [1.5]}, 3: "x"}, [], {}],
)
def test_plain_values_come_back(value):
    assert decode_record(encode_record({"field": value}))["field"] == value


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i4", "float16", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 1)])
def test_arrays_come_back(dtype, shape):
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape).astype(dtype)
    back = decode_record(encode_record({"field": array}))["field"]
    assert back.dtype == array.dtype
    assert back.shape == shape
    np.testing.assert_array_equal(back, array)


def test_a_transposed_array_keeps_its_values():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    np.testing.assert_array_equal(decode_record(encode_record({"field": array}))["field"], array)


def test_numpy_scalars_become_plain():
    back = decode_record(encode_record({"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True)}))
    assert back == {"a": 3, "b": 0.5, "c": True}
    assert [type(value) for value in back.values()] == [int, float, bool]


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), np.array([None])])
def test_nothing_is_pickled(value):
    with pytest.raises(TypeError, match="a record cannot hold"):
        encode_record({"field": value})


def test_no_object_comes_out_of_a_forged_array():
    content = msgpack.packb(("|O", (1,), pickle.dumps([1])[:8]))
    with pytest.raises(ValueError):
        decode_record(msgpack.packb({"field": msgpack.ExtType(1, content)}))


def test_an_unknown_extension_is_refused():
    with pytest.raises(ValueError, match="unknown extension 5"):
        decode_record(msgpack.packb({"field": msgpack.ExtType(5, b"")}))


def test_the_folder_describes_itself(tmp_path):
    written = write(tmp_path / "new" / "pets", {"train": iter([CAT, DOG]), "test": [{"captions": ["a fox"]}]})
    assert written["train"] == Split(("train-00000-of-00001.array_record",), 2)
    folder = tmp_path / "new" / "pets"
    assert sorted(path.name for path in folder.iterdir()) == [
        "LICENSE",
        "dataset.json",
        "test-00000-of-00001.array_record",
        "train-00000-of-00001.array_record",
    ]
    assert (folder / "LICENSE").read_text() == "Do as you like."
    description = json.loads((folder / "dataset.json").read_text())
    assert description["licence"] == "CC0-1.0"
    assert description["synthetic"] is True
    assert description["fields"] == {"captions": "list", "image": "bytes", "label": "int"}
    info, splits = read_info(folder)
    assert info._replace(class_names=tuple(info.class_names)) == INFO
    assert splits == written


def test_shards_are_of_bounded_size(tmp_path):
    records = [{"captions": ["x"], "payload": bytes(1000)} for _ in range(7)]
    written = write(tmp_path / "pets", {"train": records}, shard_size=3500)
    assert written["train"].files == tuple(f"train-{shard:05d}-of-00003.array_record" for shard in range(3))
    assert written["train"].count == 7


def test_an_existing_folder_is_never_written_over(tmp_path):
    (tmp_path / "pets").mkdir()
    with pytest.raises(FileExistsError, match=r"pets exists; remove it or choose another"):
        write(tmp_path / "pets", {"train": [CAT]})
    assert list((tmp_path / "pets").iterdir()) == []


@pytest.mark.parametrize(
    ("records", "error", "message"),
    [
        ([CAT, {"captions": []}], CorruptRecordError, "split 'train', record 1: captions is an empty list"),
        ([], ValueError, "split 'train' has no record"),
        ([{**CAT, "extra": object()}], TypeError, "a record cannot hold object"),
    ],
)
def test_a_failure_leaves_nothing(tmp_path, records, error, message):
    with pytest.raises(error, match=message):
        write(tmp_path / "pets", {"test": [DOG], "train": records})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "another"}', '{"format": "mmjax-dataset-1"}'])
def test_another_description_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json describes no dataset"):
        read_info(tmp_path)


def test_a_folder_without_description_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.json not found"):
        read_info(tmp_path)

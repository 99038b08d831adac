import json

import numpy as np
import pytest

from mmjax.data.records import CorruptRecordError
from mmjax.data.sources import build_source
from mmjax.data.storage import DatasetInfo, write_dataset

RECORDS = [
    {"id": str(i), "captions": [f"number {i}"], "label": i % 2, "image": bytes([i]) * 500, "box": np.arange(i)}
    for i in range(9)
]


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "numbers"
    info = DatasetInfo("numbers", "CC0-1.0", "made up", class_names=["even", "odd"])
    splits = {"train": RECORDS, "test": RECORDS[:2]}
    write_dataset(out, splits, info=info, licence_files={}, shard_size=2000)
    return out


def test_records_come_back_in_order(folder):
    rows = build_source("arrayrecord", path=folder)
    assert len(rows) == 9
    for i, expected in enumerate(RECORDS):
        found = rows[i]
        np.testing.assert_array_equal(found.pop("box"), expected["box"])
        assert found == {key: value for key, value in expected.items() if key != "box"}
    assert len(list(folder.glob("train-*"))) == 3
    assert rows.where(8) == f"{folder} split 'train' record 8"


def test_the_description_comes_along(folder):
    rows = build_source("arrayrecord", path=folder, split="test")
    assert len(rows) == 2
    assert rows.class_names == ("even", "odd")
    assert rows.info.licence == "CC0-1.0"


def test_a_wrong_split_is_named(folder):
    with pytest.raises(ValueError, match="numbers has no split 'tran'; did you mean 'train'"):
        build_source("arrayrecord", path=folder, split="tran")


def test_a_missing_shard_is_named(folder):
    (folder / "train-00001-of-00003.array_record").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks train-00001-of-00003\.array_record, which its dataset\.json"):
        build_source("arrayrecord", path=folder)


def test_missing_records_are_counted(folder):
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    description["splits"]["train"]["count"] = 12
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"9 records in split 'train', expected 12 .* the copy is incomplete"):
        build_source("arrayrecord", path=folder)


def test_a_shard_cut_short_stops_at_once(folder):
    shard = folder / "train-00001-of-00003.array_record"
    shard.write_bytes(shard.read_bytes()[:-70_000])
    with pytest.raises(ValueError, match="a shard of split 'train' is damaged, copy it again"):
        build_source("arrayrecord", path=folder)


def test_a_damaged_record_is_named(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    info = DatasetInfo("noise", "CC0-1.0", "made up")
    records = [{"captions": ["x"], "image": noise}, {"captions": ["y"]}]
    write_dataset(tmp_path / "noise", {"train": records}, info=info, licence_files={})
    shard = tmp_path / "noise" / "train-00000-of-00001.array_record"
    content = bytearray(shard.read_bytes())
    content[content.index(noise[2000:2100])] ^= 255
    shard.write_bytes(content)
    rows = build_source("arrayrecord", path=tmp_path / "noise")
    with pytest.raises(CorruptRecordError, match="split 'train' record 0: undecodable"):
        rows[0]
    assert rows[1]["captions"] == ["y"]

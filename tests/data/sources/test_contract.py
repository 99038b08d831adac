"""What holds for every file source alike."""

import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmjax.data.records import without_images
from mmjax.data.sources import build_source
from mmjax.data.storage import DatasetInfo, write_dataset

COUNT = 12


def write_jsonl(folder):
    rows = [{"id": str(i), "image": "a.png", "captions": [f"number {i}"], "label": i % 3} for i in range(COUNT)]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "jsonl", {"path": folder / "x.jsonl"}


def write_csv(folder):
    rows = [f"{i},a.png,number {i},{i % 3}" for i in range(COUNT)]
    (folder / "x.csv").write_text("\n".join(["id,image,caption,label", *rows]))
    return "csv", {"path": folder / "x.csv"}


def write_tars(folder):
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for i in range(shard * COUNT // 3, (shard + 1) * COUNT // 3):
                for name, content in (("jpg", b"picture"), ("txt", f"number {i}".encode()), ("cls", b"%d" % (i % 3))):
                    info = tarfile.TarInfo(f"{i}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return "webdataset", {"path": str(folder / "{0..2}.tar")}


def write_array_records(folder):
    rows = [{"id": str(i), "image": b"x", "captions": [f"number {i}"], "label": i % 3} for i in range(COUNT)]
    write_dataset(folder / "out", {"train": rows}, info=DatasetInfo("x", "x", "x"), licence_files={}, shard_size=200)
    return "arrayrecord", {"path": folder / "out"}


@pytest.fixture(params=[write_jsonl, write_csv, write_tars, write_array_records])
def source(request, pictures):
    name, settings = request.param(pictures)
    return build_source(name, **settings)


def expected(i):
    return (str(i), [f"number {i}"], i % 3)


def seen(record):
    assert isinstance(record["image"], str | bytes)
    return record["id"], record["captions"], record["label"]


def test_every_record_once_and_in_order(source):
    assert len(source) == COUNT
    assert [seen(source[i]) for i in range(COUNT)] == [expected(i) for i in range(COUNT)]


def test_a_record_does_not_depend_on_what_was_read_before(source):
    for i in (7, 0, 11, 7):
        assert seen(source[i]) == expected(i)


def test_a_copy_in_another_process_is_the_same_source(source):
    source[3]
    copy = pickle.loads(pickle.dumps(source))
    assert [seen(copy[i]) for i in range(COUNT)] == [expected(i) for i in range(COUNT)]
    assert repr(copy) == repr(source)
    assert " at 0x" not in repr(source)
    assert copy.where(5) == source.where(5)


def test_without_its_picture_a_record_is_the_same(source):
    texts = without_images(source)
    for i in (0, 7):
        whole = source[i]
        if source.__class__.__name__ != "ArrayRecordSource":  # whose records are read whole in any case
            del whole["image"]
        assert texts[i] == whole
    assert "image" in source[0]
    assert pickle.loads(pickle.dumps(texts))[3] == texts[3]


def test_threads_do_not_disturb_each_other(source):
    order = [i for _ in range(8) for i in range(COUNT)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: seen(source[i]), order)) == [expected(i) for i in order]


@pytest.mark.parametrize("index", [-1, COUNT])
def test_no_record_beyond_the_ends(source, index):
    with pytest.raises(IndexError, match=f"record {index} of {COUNT}"):
        source[index]

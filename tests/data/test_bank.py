import pickle

import numpy as np
import pytest

from mmjax.data.bank import (
    BankInfo,
    Block,
    FeatureBank,
    StaleBankError,
    describe_source,
    load_blocks,
    record_key,
    save_blocks,
    write_bank,
)

RECORDS, DIM = 5, 3
INFO = BankInfo(
    modality="image",
    source={"name": "jsonl", "path": "train.jsonl"},
    records=RECORDS,
    preprocessing={"size": 4},
    views={"transforms": [["flip", {}]], "seed": 0},
    epochs=2,
    tower={"class": "Tower"},
    params_hash="aaaa",
    dim=DIM,
)
KEYS = np.arange(RECORDS, dtype=np.uint64) + 100


def features(epoch):
    return (np.arange(RECORDS * DIM).reshape(RECORDS, DIM) + 100 * epoch).astype(np.float32)


def blocks(*, missing=(), epochs=2):
    """Two blocks an epoch, the later records first."""
    for epoch in range(epochs):
        for part in (range(2, RECORDS), range(2)):
            index = np.array([i for i in part if i not in missing], np.int64)
            yield Block(epoch, index, KEYS[index], features(epoch)[index])


def write(folder, *, missing=(), **changes):
    info = INFO._replace(**changes)
    write_bank(folder, blocks(missing=missing, epochs=info.epochs), info=info)
    return FeatureBank(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_come_back_by_index_and_epoch(tmp_path, dtype):
    bank = write(tmp_path / "bank", dtype=dtype)
    index, epoch = np.array([4, 0, 0, 2]), np.array([0, 1, 0, 1])
    rows, valid = bank.lookup(index, epoch)
    np.testing.assert_array_equal(rows, [features(e)[i] for i, e in zip(index, epoch, strict=True)])
    assert rows.dtype == np.float32
    assert valid.all()
    assert (len(bank), bank.random) == (RECORDS, True)
    assert bank.info == INFO._replace(dtype=dtype)


def test_rows_of_fixed_views_are_those_of_any_epoch(tmp_path):
    bank = write(tmp_path / "bank", views={"transforms": []}, epochs=1)
    rows, _ = bank.lookup(np.array([1, 1]), np.array([0, 7]))
    np.testing.assert_array_equal(rows, features(0)[[1, 1]])


def test_arrays_are_mapped_and_not_loaded(tmp_path):
    bank = write(tmp_path / "bank")
    assert all(isinstance(array, np.memmap) for array in (bank.keys, bank.valid, *bank._features))


def test_a_copy_for_another_process_carries_no_arrays(tmp_path):
    bank = write(tmp_path / "bank")
    content = pickle.dumps(bank)
    assert len(content) < 500
    again = pickle.loads(content).lookup(np.array([3]), np.array([1]))[0]
    np.testing.assert_array_equal(again, features(1)[[3]])


def test_missing_rows_are_nan_and_known(tmp_path):
    bank = write(tmp_path / "bank", missing=(1, 4))
    rows, valid = bank.lookup(np.arange(RECORDS), np.ones(RECORDS, int))
    np.testing.assert_array_equal(valid, [True, False, True, True, False])
    np.testing.assert_array_equal(np.isnan(rows).all(axis=1), ~valid)


def test_what_differs_is_refused_with_both_values(tmp_path):
    bank = write(tmp_path / "bank")
    bank.check(source={"name": "jsonl", "path": "train.jsonl"}, params_hash="aaaa")
    with pytest.raises(StaleBankError, match=r"bank is not of this run \(bank -> run\): params_hash: aaaa -> bbbb"):
        bank.check(params_hash="bbbb")
    with pytest.raises(StaleBankError, match=r"source\.path: train\.jsonl -> test\.jsonl; change the run"):
        bank.check(source={"name": "jsonl", "path": "test.jsonl"})
    with pytest.raises(StaleBankError, match=r"views\.seed: 0 -> \(absent\)"):
        bank.check(views={"transforms": (("flip", {}),)})


def test_other_records_are_refused(tmp_path):
    bank = write(tmp_path / "bank")
    bank.check_keys(np.array([3, 0]), KEYS[[3, 0]])
    with pytest.raises(StaleBankError, match=r"record 0 has the key 0{14}64 in it and 0{14}65 here"):
        bank.check_keys(np.array([3, 0]), KEYS[[3, 1]])


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [(np.nan, "float32", "record 3 is not finite in float32"), (1e6, "float16", "float16; store float32")],
)
def test_embeddings_that_are_not_finite_are_refused_and_leave_nothing(tmp_path, value, dtype, message):
    block = Block(0, np.array([2, 3]), KEYS[2:4], np.array([[1.0] * DIM, [1.0, value, 1.0]], np.float32))
    with pytest.raises(ValueError, match=message):
        write_bank(tmp_path / "bank", [block], info=INFO._replace(dtype=dtype))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing_and_a_bank_is_never_overwritten(tmp_path):
    def interrupted():
        yield from blocks(epochs=1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bank(tmp_path / "bank", interrupted(), info=INFO)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "bank")
    with pytest.raises(FileExistsError, match="bank exists"):
        write(tmp_path / "bank")


def test_a_damaged_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no feature bank, it has no bank\.json"):
        FeatureBank(tmp_path)
    folder = write(tmp_path / "bank").folder
    np.save(folder / "keys.npy", KEYS[:3])
    with pytest.raises(ValueError, match=r"uint64 \(3,\), expected uint64 \(5,\)"):
        FeatureBank(folder)
    (folder / "keys.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks keys\.npy"):
        FeatureBank(folder)
    (folder / "bank.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="format is 'other', expected 'mmjax-bank-1'"):
        FeatureBank(folder)


def test_a_source_is_described_with_defaults_and_without_where_its_files_lie():
    described = describe_source("shapes", num_records=10)
    assert described == describe_source("shapes", split="train", num_records=10, seed=0)
    assert described != describe_source("shapes", num_records=10, seed=1)
    assert describe_source("jsonl", path="/here/a.jsonl") == describe_source("jsonl", path="there/a.jsonl")
    assert describe_source("jsonl", path="a.jsonl") != describe_source("jsonl", path="b.jsonl")
    assert describe_source("webdataset", path=["x/a.tar", "x/b.tar"])["path"] == ["a.tar", "b.tar"]


def test_blocks_come_back_from_a_file_as_they_were(tmp_path):
    assert save_blocks(tmp_path / "part", blocks(missing=(1,))) == 8
    found = list(load_blocks(tmp_path / "part"))
    for one, other in zip(found, blocks(missing=(1,)), strict=True):
        assert one.epoch == other.epoch
        for array, expected in zip(one[1:], other[1:], strict=True):
            np.testing.assert_array_equal(array, expected)
            assert array.dtype == expected.dtype
    assert save_blocks(tmp_path / "none", []) == 0
    assert list(load_blocks(tmp_path / "none")) == []


def test_keys_tell_id_and_captions():
    records = [{"id": "1"}, {"id": "2"}, {"id": "1", "captions": ["a"]}, {"captions": ["a"]}, {"captions": ["a", "b"]}]
    assert len({record_key(record) for record in records}) == len(records)
    assert record_key({"id": "1", "image": b"x"}) == record_key({"id": "1", "image": b"y"})

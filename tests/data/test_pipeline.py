import ast
import functools
import gc
import json
import multiprocessing
import pathlib
import threading

import numpy as np
import pytest

import mmjax.data
from mmjax.data import ArraySpec
from mmjax.data.image_spec import normalize
from mmjax.data.images import resize_to
from tests.data.streams import (
    RECORDS,
    SOURCE,
    SPEC,
    TOKENIZER,
    TRANSFORMS,
    WORDS,
    assert_equal_batches,
    indices,
    stream,
    take,
    with_bad,
)


def test_every_example_once_an_epoch():
    batches = take(epochs=3, transforms=TRANSFORMS)
    assert [len(batch["index"]) for batch in batches] == [16] * 18 + [12]
    epochs = indices(batches).reshape(3, RECORDS)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), [range(RECORDS)] * 3)
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(workers):
    settings = {"epochs": 2, "transforms": TRANSFORMS, "source": with_bad(7), "max_bad_share": 0.1}
    expected = take(**settings)
    np.testing.assert_array_equal(np.sort(indices(expected)), np.repeat(np.delete(range(RECORDS), 7), 2))
    with stream(**settings, num_workers=workers) as batches:
        assert_equal_batches(list(batches), expected)
        assert batches.bad_records == 2
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_workers_go_on_from_a_state_of_none():
    settings = {"transforms": TRANSFORMS}
    expected = take(12, **settings)
    with stream(**settings) as batches:
        for _ in range(5):
            next(batches)
        state = batches.get_state()
    with stream(**settings, num_workers=2) as batches:
        batches.set_state(state)
        assert_equal_batches([next(batches) for _ in range(7)], expected[5:])


@pytest.mark.parametrize("settings", [{"num_threads": 2}, {"prefetch": 0}, {"prefetch": 5}])
def test_threads_change_nothing(settings):
    assert_equal_batches(take(epochs=1, transforms=TRANSFORMS, **settings), take(epochs=1, transforms=TRANSFORMS))


STREAMS = {
    "keep": {},
    "drop": {"remainder": "drop"},
    "pad": {"remainder": "pad"},
    "no shuffle": {"shuffle": False},
    "bad": {"source": with_bad(3, 50), "max_bad_share": 0.1},
    "bad, padded": {"source": with_bad(3, 50), "max_bad_share": 0.1, "remainder": "pad"},
    "grouped": {"buckets": (4, 8, 16), "group_by_length": True},
    "grouped, dropped, bad": {
        "buckets": (4, 8, 16),
        "group_by_length": True,
        "remainder": "drop",
        "source": with_bad(3),
        "max_bad_share": 0.1,
    },
    "second of two": {"shard": (1, 2)},
}


@functools.cache
def uninterrupted(name):
    return take(10, **{"transforms": TRANSFORMS, **STREAMS[name]})


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("at", [0, 3, 6, 7])
def test_resumed_is_uninterrupted(name, at):
    # An epoch ends within or after batch 7 (batch 6 where the remainder is dropped).
    settings = {"transforms": TRANSFORMS, **STREAMS[name]}
    expected = uninterrupted(name)
    with stream(**settings) as batches:
        assert_equal_batches([next(batches) for _ in range(at)], expected[:at])
        state = json.loads(json.dumps(batches.get_state()))
        bad = batches.bad_records
    with stream(**settings) as fresh:
        fresh.set_state(state)
        assert fresh.get_state() == state
        assert fresh.bad_records == bad
        assert_equal_batches([next(fresh) for _ in range(10 - at)], expected[at:])


def test_state_is_that_of_the_batch_last_yielded():
    with stream(prefetch=4) as batches:
        next(batches)
        assert batches.get_state()["position"] == 16
        expected = next(batches)
    with stream(prefetch=4) as batches:
        next(batches)
        state = batches.get_state()
        for _ in range(3):
            next(batches)
        batches.set_state(state)
        assert_equal_batches([next(batches)], [expected])


def test_state_at_the_end_stays_at_the_end():
    with stream(epochs=1) as batches:
        whole = list(batches)
        state = batches.get_state()
    assert indices(whole).size == RECORDS
    with stream(epochs=1) as batches:
        batches.set_state(state)
        assert list(batches) == []
    with stream(epochs=2) as batches:
        batches.set_state(state)
        np.testing.assert_array_equal(np.sort(indices(list(batches))), range(RECORDS))


def test_state_of_another_stream_is_refused():
    with stream() as batches:
        state = batches.get_state()
    with stream(seed=2, batch_size=8) as other, pytest.raises(ValueError, match="batch_size 16 -> 8, seed 1 -> 2"):
        other.set_state(state)


def test_drop_leaves_the_remainder_out():
    batches = take(epochs=2, remainder="drop")
    assert [len(batch["index"]) for batch in batches] == [16] * 12
    for epoch in indices(batches).reshape(2, 96):
        assert len(set(epoch)) == 96


def test_pad_fills_the_remainder_up():
    batches = take(epochs=2, remainder="pad")
    assert [len(batch["index"]) for batch in batches] == [16] * 14
    for epoch in (batches[:7], batches[7:]):
        mask = np.concatenate([batch["mask"] for batch in epoch])
        np.testing.assert_array_equal(mask, [True] * RECORDS + [False] * 12)
        np.testing.assert_array_equal(np.sort(indices(epoch)[mask]), range(RECORDS))
    assert not batches[6]["text_mask"][4:].any()


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_processes_share_each_batch(remainder):
    whole = take(8, remainder=remainder, transforms=TRANSFORMS)
    parts = [take(8, remainder=remainder, transforms=TRANSFORMS, shard=(process, 4)) for process in range(4)]
    for step, batch in enumerate(whole):
        for process in range(4):
            for name, values in parts[process][step].items():
                np.testing.assert_array_equal(values, batch[name][process::4], err_msg=name)


def test_contents():
    for batch in take(epochs=1):
        for row, index in enumerate(batch["index"]):
            expected = SOURCE[index]
            np.testing.assert_array_equal(batch["image"][row], normalize(resize_to(expected["image"], 4), SPEC))
            texts, masks = TOKENIZER.encode(expected["captions"], length=16)
            chosen = [caption for caption in range(2) if (texts[caption] == batch["text"][row]).all()]
            assert chosen
            np.testing.assert_array_equal(batch["text_mask"][row], masks[chosen[0]])
            assert batch["label"][row] == expected["label"]


def test_element_spec():
    expected = {
        "image": ArraySpec((16, 4, 4, 3), np.dtype(np.float32)),
        "text": ArraySpec((16, 16), np.dtype(np.int32)),
        "text_mask": ArraySpec((16, 16), np.dtype(bool)),
        "label": ArraySpec((16,), np.dtype(np.int32)),
        "index": ArraySpec((16,), np.dtype(np.int64)),
    }
    with stream() as batches:
        assert batches.element_spec == expected
        assert {name: ArraySpec(array.shape, array.dtype) for name, array in next(batches).items()} == expected
    with stream(shard=(1, 4), remainder="pad", tokenizer=None) as batches:
        assert set(batches.element_spec) == {"image", "label", "index", "mask"}
        assert batches.element_spec["image"].shape == (4, 4, 4, 3)
        assert batches.element_spec["mask"] == ArraySpec((4,), np.dtype(bool))


def test_captions_are_chosen_anew_each_epoch():
    # Caption c of record 0 has c + 1 words.
    source = [{"captions": [" ".join(WORDS[: c + 1]) for c in range(4)]}]
    settings = {"source": source, "batch_size": 1, "image": None, "epochs": 200}
    lengths = np.concatenate([batch["text_mask"].sum(axis=1) for batch in take(**settings)])
    kinds, counts = np.unique(lengths, return_counts=True)
    assert len(kinds) == 4
    assert counts.min() > 25
    weighted = np.concatenate([b["text_mask"].sum(axis=1) for b in take(**settings, caption_weights=(1, 0, 3))])
    kinds, counts = np.unique(weighted, return_counts=True)
    assert len(kinds) == 2
    assert 120 < counts[1] < 180


@pytest.mark.parametrize("settings", [{}, {"num_threads": 2}])
def test_threads_end(settings):
    before = set(threading.enumerate())
    with stream(**settings) as batches:
        next(batches)
        assert set(threading.enumerate()) > before
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
    assert set(threading.enumerate()) == before
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_threads_of_a_dropped_iterator_end():
    before = set(threading.enumerate())
    batches = stream()
    next(batches)
    (thread,) = set(threading.enumerate()) - before
    del batches
    gc.collect()
    thread.join(timeout=5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 9, "shard": (0, 2)}, "batch_size is 9, expected a multiple of the 2 processes, e.g. 8 or 10"),
        ({"max_bad_share": 5}, r"max_bad_share is 5, expected a share in \[0, 1\]"),
        ({"prefetch": -1}, "prefetch is -1, expected 0 or more"),
        ({"caption_weights": (0, 1)}, "expected the first to be positive"),
        ({"buckets": (8, 32)}, "end at context_length, 16"),
        ({"transforms": ("flop",)}, "did you mean 'flip'"),
        ({"source": [{"image": SOURCE[0]["image"]}]}, "has no captions, only image; pass tokenizer=None"),
        ({"source": []}, "no records"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        stream(**settings)


def test_the_room_does_not_import_jax():
    folder = pathlib.Path(mmjax.data.__path__[0])
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [module for module in modules if module.split(".")[0] in ("jax", "flax", "torch")], path

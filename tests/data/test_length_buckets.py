"""Length buckets, and batches of texts of one length, of a stream."""

import json
import multiprocessing

import numpy as np
import pytest

from tests.data.streams import GROUPED, RECORDS, TRANSFORMS, assert_equal_batches, indices, stream, take, with_bad


@pytest.mark.parametrize("grouped", [False, True])
def test_buckets_cut_and_lose_nothing(grouped):
    plain = {int(i): text for b in take(epochs=1) for i, text in zip(b["index"], b["text"], strict=True)}
    batches = take(epochs=1, buckets=(5, 9, 16), group_by_length=grouped)
    assert sum(len(batch["index"]) for batch in batches) == RECORDS
    assert {batch["text"].shape[1] for batch in batches} >= ({5, 9, 16} if grouped else {16})
    for batch in batches:
        width = batch["text"].shape[1]
        longest = batch["text_mask"].sum(axis=1).max()
        assert width == min(length for length in (5, 9, 16) if length >= longest)
        for index, text in zip(batch["index"], batch["text"], strict=True):
            np.testing.assert_array_equal(text, plain.pop(int(index))[:width])
    assert not plain


def test_groups_keep_to_their_epoch():
    batches = take(epochs=4, buckets=(5, 9, 16), group_by_length=True)
    order = indices(batches)
    np.testing.assert_array_equal(np.bincount(order), [4] * RECORDS)
    # Fewer than a batch wait for the next epoch.
    for epoch in range(1, 4):
        counts = np.bincount(order[: epoch * RECORDS // 16 * 16], minlength=RECORDS)
        assert counts.min() >= epoch - 1
        assert (counts < epoch).sum() < 16


def test_short_captions_cost_little():
    grouped = sum(b["text"].size for b in take(epochs=2, buckets=(5, 9, 16), group_by_length=True))
    assert grouped < 0.8 * sum(b["text"].size for b in take(epochs=2, buckets=(5, 9, 16)))


@pytest.mark.slow
def test_workers_change_nothing_of_a_plan():
    settings = {"epochs": 2, "transforms": TRANSFORMS, "source": with_bad(7), "max_bad_share": 0.1, **GROUPED}
    expected = take(**settings)
    with stream(**settings, num_workers=2, num_threads=2) as batches:
        found = [next(batches) for _ in range(3)]
        batches.set_state(json.loads(json.dumps(batches.get_state())))
        assert_equal_batches([*found, *batches], expected)
    assert not multiprocessing.active_children()


def test_a_stream_of_two_processes_goes_on_from_a_state_of_one():
    settings = {"buckets": (5, 9, 16), "transforms": TRANSFORMS}
    expected = take(7, **settings)
    with stream(**settings) as alone:
        for _ in range(3):
            next(alone)
        state = alone.get_state()
    for process in (0, 1):
        with stream(**settings, shard=(process, 2)) as half:
            half.set_state({**state, "position": state["position"] // 2, "stream": half.get_state()["stream"]})
            for batch in expected[3:]:
                for name, values in next(half).items():
                    np.testing.assert_array_equal(values, batch[name][process::2], err_msg=name)

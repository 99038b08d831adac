import itertools

import numpy as np
import pytest

from mmjax.data.order import PADDING, make_order


def order(records=10, *, batch_size=4, seed=0, shuffle=True, remainder="keep", shard=(0, 1)):
    return make_order(records, batch_size=batch_size, seed=seed, shuffle=shuffle, remainder=remainder, shard=shard)


def indices(order, epochs):
    return [order.locate(position)[1] for position in range(order.positions(epochs))]


@pytest.mark.parametrize("records", [1, 2, 7, 100])
def test_an_epoch_is_a_permutation(records):
    found = np.reshape(indices(order(records, batch_size=1), 3), (3, records))
    np.testing.assert_array_equal(np.sort(found, axis=1), [range(records)] * 3)


def test_epochs_and_seeds_differ():
    permutations = [np.reshape(indices(order(30, seed=seed), 4), (4, 30)) for seed in range(4)]
    assert len(np.unique(np.concatenate(permutations), axis=0)) == 16


def test_order_of_the_source():
    assert indices(order(3, shuffle=False), 2) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(("remainder", "length"), [("keep", 10), ("drop", 8), ("pad", 12)])
def test_remainder(remainder, length):
    made = order(10, remainder=remainder)
    found = np.reshape(indices(made, 2), (2, length))
    for epoch in found:
        kept = epoch[epoch != PADDING]
        assert len(set(kept)) == len(kept) == min(length, 10)
    assert [made.locate(position)[0] for position in range(2 * length)] == [0] * length + [1] * length


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_are_one(remainder, processes):
    whole = indices(order(11, batch_size=4, remainder=remainder), 3)
    parts = [indices(order(11, batch_size=4, remainder=remainder, shard=(p, processes)), 3) for p in range(processes)]
    joined = [None] * len(whole)
    for process, part in enumerate(parts):
        joined[process::processes] = part
    assert joined == whole


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
@pytest.mark.parametrize("shard", [(0, 1), (0, 2), (1, 2)])
def test_ends_of_epochs(remainder, shard):
    made = order(7, batch_size=2, remainder=remainder, shard=shard)
    epochs = [made.locate(position)[0] for position in range(made.positions(4) + 4)]
    changes = [before != after for before, after in itertools.pairwise(epochs)]
    assert [made.ends_epoch(position) for position in range(len(changes))] == changes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10, "shard": (0, 4)}, "batch_size is 10, expected a multiple of the 4 processes, e.g. 8 or 12"),
        ({"batch_size": 3, "shard": (0, 4)}, "e.g. 4"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shard": (2, 2)}, r"shard is \(2, 2\)"),
        ({"remainder": "round"}, "remainder is 'round', expected one of 'keep', 'drop', 'pad'"),
        ({"records": 0}, "no records"),
        ({"records": 3, "remainder": "drop"}, "take a batch_size of at most 3"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        order(**settings)

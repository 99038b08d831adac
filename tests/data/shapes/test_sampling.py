import numpy as np
import pytest

from mmjax.data.shapes.hashing import mix
from mmjax.data.shapes.sampling import DistinctRows, IndependentRows

GROUPS = {"a": np.arange(5), "b": np.arange(100, 1100)}


def test_independent_rows_follow_the_weights_and_reach_every_row():
    sample = IndependentRows(GROUPS, {"a": 1, "b": 3})
    rows = np.array([sample(0, mix(i)) for i in range(20_000)])
    assert np.mean(rows < 5) == pytest.approx(0.25, abs=0.01)
    assert set(rows.tolist()) == {*range(5), *range(100, 1100)}


@pytest.mark.parametrize("bits", [0, 2**64 - 1])
def test_independent_rows_take_any_bits(bits):
    assert IndependentRows(GROUPS, {"a": 0.1, "b": 0.2})(0, bits) in (0, 100 + (2**32 - 1) % 1000)


def distinct(number, seed=7, weights=None):
    sample = DistinctRows(GROUPS, weights or {"a": 1, "b": 3}, number=number, seed=seed)
    return [int(sample(i, 0)) for i in range(number)]


def test_distinct_rows_never_repeat_and_end_with_all():
    assert sorted(distinct(1005)) == [*range(5), *range(100, 1100)]


def test_fewer_distinct_rows_are_the_first_of_more():
    assert distinct(10) == distinct(500)[:10]
    assert distinct(10, seed=8) != distinct(10)


def test_distinct_rows_follow_the_weights():
    first = np.array([distinct(1, seed=seed)[0] for seed in range(400)])
    assert np.mean(first < 5) == pytest.approx(0.25, abs=0.06)

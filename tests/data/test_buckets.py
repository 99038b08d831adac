import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.buckets import Pools, Row, bucket_length, check_buckets

LENGTHS = (4, 8, 16)


def positions(rows):
    return [row.position for row in rows]


@settings(deadline=None)
@given(st.lists(st.integers(0, 16), max_size=60), st.integers(1, 7))
def test_nothing_is_lost_and_nothing_grows(lengths, batch_size):
    pools = Pools(LENGTHS, batch_size=batch_size)
    batches = []
    for position, length in enumerate(lengths):
        if batch := pools.add(Row(position, length)):
            batches.append(batch)
            assert len({bucket_length(LENGTHS, row.length) for row in batch}) == 1
        assert len(pools.rows()) <= len(LENGTHS) * (batch_size - 1)
    batches += pools.flush()
    assert all(len(batch) == batch_size for batch in batches)
    assert len(pools.rows()) < batch_size
    assert sorted(positions(pools.rows()) + [p for batch in batches for p in positions(batch)]) == list(
        range(len(lengths))
    )


def test_flush_takes_the_longest_first():
    pools = Pools(LENGTHS, batch_size=3)
    for position, length in enumerate([1, 9, 5, 2, 16]):
        assert pools.add(Row(position, length)) is None
    (batch,) = pools.flush()
    assert positions(batch) == [1, 4, 2]
    assert positions(pools.rows()) == [0, 3]


def test_rows_put_back_in_order_make_the_same_pools():
    pools, again = Pools(LENGTHS, batch_size=3), Pools(LENGTHS, batch_size=3)
    for position, length in enumerate([9, 1, 10, 2, 5]):
        pools.add(Row(position, length))
    for row in pools.rows():
        again.add(row)
    assert positions(again.rows()) == positions(pools.rows()) == [1, 3, 4, 0, 2]
    assert positions(again.add(Row(5, 3))) == [1, 3, 5]


@pytest.mark.parametrize(("longest", "length"), [(0, 4), (4, 4), (5, 8), (16, 16)])
def test_bucket_length(longest, length):
    assert bucket_length(LENGTHS, longest) == length


def test_check_buckets():
    assert check_buckets(None, context_length=77) == (77,)
    assert check_buckets([16, 77], context_length=77) == (16, 77)
    for wrong in ((16, 32), (32, 16, 77), (16, 16, 77), (0, 77)):
        with pytest.raises(ValueError, match="ascending lengths that end at context_length, 77"):
            check_buckets(wrong, context_length=77)

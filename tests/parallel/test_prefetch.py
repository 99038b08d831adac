import numpy as np
import pytest

from mmjax.parallel import make_mesh, prefetch_to_device


class Counting:
    """Batches 0, 1, ... whose state is how many were read."""

    def __init__(self, count):
        self.read, self.count = 0, count

    def __next__(self):
        if self.read == self.count:
            raise StopIteration
        self.read += 1
        return {"x": np.full(len(make_mesh().devices.flat), self.read - 1)}

    def get_state(self):
        return {"read": self.read}


@pytest.mark.parametrize(("size", "ahead"), [(1, 0), (2, 1), (3, 2)])
def test_batches_come_in_order_and_the_state_is_of_the_one_last_yielded(size, ahead):
    source = Counting(5)
    batches = prefetch_to_device(source, make_mesh(), size=size)
    assert batches.get_state() == {"read": 0}
    for number in range(5):
        assert np.asarray(next(batches)["x"])[0] == number
        assert batches.get_state() == {"read": number + 1}
        assert source.read == min(number + 1 + ahead, 5)
    with pytest.raises(StopIteration):
        next(batches)


def test_what_was_ahead_is_read_again_from_the_state():
    batches = prefetch_to_device(Counting(9), make_mesh(), size=4)
    next(batches)
    again = Counting(9)
    again.read = batches.get_state()["read"]
    assert next(again)["x"][0] == np.asarray(next(batches)["x"])[0]


def test_size_zero_is_refused():
    with pytest.raises(ValueError, match="size is 0, expected 1 or more"):
        prefetch_to_device(Counting(1), make_mesh(), size=0)

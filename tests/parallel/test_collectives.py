import numpy as np
import pytest
from jax.sharding import AbstractMesh

from mmjax import losses, parallel
from mmjax.parallel.collectives import first_row, visit_all
from tests import devices

DEVICES = {"1": 1, "2": 2, "8": 8, "2x4": 8}


@pytest.fixture(scope="module")
def visits():
    return devices.run("tests.parallel.visits")


@pytest.mark.parametrize("exchange", ["ring", "all_gather"])
@pytest.mark.parametrize("mesh", DEVICES)
def test_every_device_sees_every_row_once_and_gifts_come_home(visits, exchange, mesh):
    seen, gifts, most, places = visits[f"{exchange}/{mesh}"]
    n = DEVICES[mesh]
    assert seen == [2.0**16 - 1] * 16  # each power of two exactly once
    assert gifts == [2.0**i * n * (n + 1) / 2 for i in range(16)]  # one gift of each device, to the row it was for
    assert most == [n - 1] * 16  # merged by the function given, not by addition
    assert places == list(range(16))


def test_alone_a_device_visits_itself():
    host, gift = visit_all(lambda host, visitor: (host + visitor, -visitor), 1, 2, 0, merge=max, axis_name=None)
    assert (host, gift) == (3, -2)
    assert first_row(5, None) == 0


def test_uneven_shards_are_refused_with_the_fix():
    embeds = np.ones((6, 2))
    message = (
        r"sharded clip_loss: 6 rows do not divide over 4 devices \(data 2, fsdp 2\); "
        "choose a batch that is a multiple of 4, or drop the remainder"
    )
    with pytest.raises(ValueError, match=message):
        parallel.sharded(losses.clip_loss, AbstractMesh((2, 2), ("data", "fsdp")))(embeds, embeds, scale=1.0)

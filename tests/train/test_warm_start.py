import jax.numpy as jnp
import pytest

from mmjax.config import ConfigError
from mmjax.train import warm_start

OWN = {"image": {"proj": jnp.zeros((2, 3))}, "head": jnp.zeros(4)}


def test_shared_leaves_come_from_the_source_and_the_rest_is_told():
    report = warm_start(OWN, {"image": {"proj": jnp.ones((2, 3))}, "old": jnp.ones(1)})
    assert (report.loaded, report.kept, report.unused) == (("image/proj",), ("head",), ("old",))
    assert float(report.params["image"]["proj"].sum()) == 6.0
    assert report.params["head"] is OWN["head"]
    assert str(report).splitlines() == [
        "warm start: 1 leaves loaded, 1 kept, 1 unused",
        "  kept: head",
        "  unused: old",
    ]


def test_nothing_shared_is_an_error_with_near_misses():
    with pytest.raises(ConfigError, match=r"none of 2 leaves.*'image/proj'.*'images/proj'"):
        warm_start(OWN, {"images": {"proj": jnp.ones((2, 3))}})


def test_leaves_of_another_shape_are_listed():
    with pytest.raises(ConfigError, match=r"image/proj: \(3, 2\) in the source, \(2, 3\) here"):
        warm_start(OWN, {"image": {"proj": jnp.ones((3, 2))}})

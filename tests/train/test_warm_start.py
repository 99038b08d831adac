import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.config import ConfigError
from mmjax.models import stack_layers
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


def tower(depth=3):
    return {"encoder": {f"block_{i}": {"w": jnp.full(2, float(i))} for i in range(depth)}, "proj": jnp.full(2, 9.0)}


@pytest.mark.parametrize("own_scanned", [False, True])
def test_layers_are_stacked_or_unstacked_as_they_are_here(own_scanned):
    unrolled, scanned = {"image": tower()}, {"image": stack_layers(tower())}
    own, source = (scanned, unrolled) if own_scanned else (unrolled, scanned)
    report = warm_start(jax.tree.map(jnp.zeros_like, own), source)
    jax.tree.map(np.testing.assert_array_equal, report.params, own)
    assert (report.kept, report.unused) == ((), ())


def test_another_depth_is_another_shape_or_unused():
    scanned = {"image": stack_layers(tower(2))}
    with pytest.raises(ConfigError, match=r"image/encoder/blocks/w: \(3, 2\) in the source, \(2, 2\) here"):
        warm_start(scanned, {"image": tower(3)})
    report = warm_start({"image": tower(2)}, {"image": stack_layers(tower(3))})
    assert report.unused == ("image/encoder/block_2/w",)

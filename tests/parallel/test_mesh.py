import jax
import numpy as np
import pytest

from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.parallel.mesh import _complete


def test_mesh_takes_all_devices_and_refuses_another_number():
    assert parallel.make_mesh().shape == {"data": len(jax.devices()), "fsdp": 1, "tensor": 1}
    with pytest.raises(ConfigError, match=r"mesh \(data 3, fsdp 1, tensor 1\) has 3 devices, but there are 1; set"):
        parallel.make_mesh(data=3)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((-1, 2, 2), (2, 2, 2)), ((1, -1, 1), (1, 8, 1)), ((2, 2, -1), (2, 2, 2))],
)
def test_one_size_may_be_the_rest(sizes, expected):
    assert _complete(dict(zip(parallel.AXES, sizes, strict=True)), 8) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, -1, 1), "at most one size can be -1, the rest; set data or fsdp"),
        ((0, 1, 1), r"mesh\.data is 0, expected at least 1, or -1 for the rest of 8 devices"),
        ((1, 1, -2), r"mesh\.tensor is -2"),
        ((-1, 3, 1), "fsdp 3 = 3 does not divide 8 devices"),
        ((4, 4, 1), r"has 16 devices, but there are 8; set mesh\.data to 2 or -1"),
        ((1, 3, 1), r"has 3 devices, but there are 8; choose sizes that multiply to 8, or -1 for one"),
    ],
)
def test_impossible_sizes_are_refused_with_the_fix(sizes, message):
    with pytest.raises(ConfigError, match=message):
        _complete(dict(zip(parallel.AXES, sizes, strict=True)), 8)


@pytest.mark.parametrize("put", [parallel.put_batch, parallel.put_shared_batch])
def test_batch_keeps_its_values(put):
    batch = {"x": np.arange(6.0).reshape(3, 2)}
    np.testing.assert_array_equal(put(batch, parallel.make_mesh())["x"], batch["x"])


def test_description_names_sizes_and_processes():
    assert parallel.describe(parallel.make_mesh()) == "mesh: data 1, fsdp 1, tensor 1; cpu devices of 1 process"

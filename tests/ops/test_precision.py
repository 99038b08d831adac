import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import at_least_float32


@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "bfloat16", "float32"])
def test_narrow_types_become_float32(dtype):
    wide = at_least_float32(jnp.ones(2, dtype))
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(wide, 1.0)


def test_float64_stays():
    with jax.enable_x64(True):
        assert at_least_float32(np.ones(2)).dtype == jnp.float64

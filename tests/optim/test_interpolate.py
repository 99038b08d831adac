import jax
import jax.numpy as jnp
import pytest

from mmjax.optim import interpolate_params


@pytest.mark.parametrize(("ratio", "wanted"), [(0.0, [4.0, -1.0]), (0.25, [3.5, -0.75]), (1.0, [2.0, 0.0])])
def test_by_hand(ratio, wanted):
    params, anchor = {"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([4.0, -1.0])}
    assert interpolate_params(params, anchor, ratio=ratio)["w"].tolist() == wanted


def test_exchanging_the_trees_exchanges_the_ratio():
    a, b = jax.random.normal(jax.random.key(0), (2, 5))
    assert jnp.allclose(interpolate_params(a, b, ratio=0.3), interpolate_params(b, a, ratio=0.7), atol=1e-6)


def test_half_precision_is_summed_in_float32():
    """Between 3 and 3 there is only 3; with products rounded to bfloat16 it is 2.984."""
    result = interpolate_params(jnp.bfloat16(3.0), jnp.bfloat16(3.0), ratio=0.1)
    assert result.dtype == jnp.bfloat16
    assert float(result) == 3.0


def test_counters_are_those_of_the_parameters():
    result = interpolate_params({"n": jnp.array(3)}, {"n": jnp.array(9)}, ratio=0.5)
    assert result["n"] == 3

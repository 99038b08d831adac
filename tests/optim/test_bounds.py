import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.optim import clip_params
from mmjax.paths import NoMatchError


def after(bounds, params, updates):
    transformation = clip_params(bounds)
    updates, _ = jax.jit(transformation.update)(updates, transformation.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_bounds_hold_to_the_last_bit(dtype):
    """Over many magnitudes of both, the rounded sum of parameter and update must not pass a bound."""
    low, high = (float(jnp.asarray(x, dtype)) for x in (-1 / 3, math.log(100.0)))
    random = np.random.default_rng(0)
    magnitude = 10.0 ** random.uniform(-6, 4, (2, 4000))
    value, update = jnp.asarray(magnitude * random.choice([-1.0, 1.0], magnitude.shape), dtype)
    result = after({"w": (low, high)}, {"w": value}, {"w": update})["w"]
    assert result.dtype == dtype
    assert float(result.max()) <= high
    assert float(result.min()) >= low
    free = value + update
    inside = (low <= free) & (free <= high)
    np.testing.assert_array_equal(result[inside], free[inside])
    assert 500 < int(jnp.sum(inside)) < 3500


def test_only_matched_leaves_are_bounded():
    params = {"log_scale": jnp.array(4.0), "text": {"bias": jnp.array(4.0)}}
    result = after({"log_scale": (0.0, 4.5)}, params, jax.tree.map(lambda x: x + 1.0, params))
    assert float(result["log_scale"]) == 4.5
    assert float(result["text"]["bias"]) == 9.0


def test_one_sided_bounds_and_several_patterns():
    params = {"a": jnp.array([-5.0, 5.0]), "b": jnp.array([-5.0, 5.0])}
    result = after({"*": (0.0, math.inf), "b": (-math.inf, 1.0)}, params, jax.tree.map(jnp.zeros_like, params))
    assert result["a"].tolist() == [0.0, 5.0]
    assert result["b"].tolist() == [0.0, 1.0]


def test_not_a_number_stays_visible():
    result = after({"w": (0.0, 1.0)}, {"w": jnp.array(0.5)}, {"w": jnp.array(jnp.nan)})
    assert jnp.isnan(result["w"])


def test_errors():
    with pytest.raises(NoMatchError, match="'log_scal': did you mean 'log_scale'"):
        clip_params({"log_scal": (0.0, 1.0)}).init({"log_scale": jnp.zeros(())})
    with pytest.raises(ValueError, match=r"'w' has bounds \(1.0, 0.0\), expected low <= high"):
        clip_params({"w": (1.0, 0.0)})
    with pytest.raises(ValueError, match="expected low <= high"):
        clip_params({"w": (math.nan, 0.0)})
    with pytest.raises(ValueError, match="update needs the parameters"):
        clip_params({"w": (0.0, 1.0)}).update({"w": jnp.zeros(())}, optax.EmptyState())

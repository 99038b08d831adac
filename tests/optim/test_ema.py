import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.optim import ema_update, ema_warmup_decay


def test_closed_form():
    """Towards a constant c the distance shrinks by `decay` a step: c + decay^n (start - c)."""
    ema, new = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 0.5])}
    for _ in range(7):
        ema = ema_update(ema, new, decay=0.9)
    np.testing.assert_allclose(ema["w"], new["w"] + 0.9**7 * np.array([-2.0, -2.5]), rtol=1e-6)


@pytest.mark.parametrize(("decay", "wanted"), [(1.0, 0.1), (0.0, 0.3)])
def test_ends_are_exact(decay, wanted):
    assert ema_update(jnp.float32(0.1), jnp.float32(0.3), decay=decay) == jnp.float32(wanted)


def test_dtypes_of_the_average_are_kept_and_counters_copied():
    ema = {"w": jnp.ones(2, jnp.float32), "h": jnp.ones(2, jnp.bfloat16), "count": jnp.array(3)}
    new = {"w": jnp.zeros(2, jnp.bfloat16), "h": jnp.zeros(2, jnp.float32), "count": jnp.array(4)}
    result = jax.jit(ema_update)(ema, new, decay=0.5)
    assert jax.tree.map(lambda x: x.dtype, result) == jax.tree.map(lambda x: x.dtype, ema)
    assert result["w"].tolist() == result["h"].tolist() == [0.5, 0.5]
    assert result["count"] == 4


def test_half_precision_is_summed_in_float32():
    """The average of 3 and 3 is 3; with products rounded to bfloat16 it is 2.984."""
    assert float(ema_update(jnp.bfloat16(3.0), jnp.bfloat16(3.0), decay=0.1)) == 3.0


def test_trees_that_differ_are_an_error():
    with pytest.raises(ValueError, match="key"):
        ema_update({"w": jnp.ones(2)}, {"v": jnp.ones(2)}, decay=0.5)


def test_warmup_makes_a_plain_mean_until_its_limit():
    values = np.random.default_rng(0).normal(size=9).astype(np.float32)
    ema = jnp.float32(100.0)
    for step, value in enumerate(values):
        ema = ema_update(ema, jnp.float32(value), decay=ema_warmup_decay(step, max_decay=0.999))
    np.testing.assert_allclose(ema, values.mean(), rtol=1e-5)
    assert ema_warmup_decay(jnp.array([98, 99, 5000])).tolist() == pytest.approx([1 - 1 / 99, 0.99, 0.99])

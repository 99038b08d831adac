import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.optim import (
    build_schedule,
    cosine_schedule,
    linear_schedule,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
    warmup_rsqrt,
)

ROOT_HALF = 0.5**0.5


def test_warmup_cosine_by_hand():
    steps = jnp.array([0, 1, 3, 4, 6, 8, 10, 12])
    rates = warmup_cosine(steps, base_lr=2.0, warmup_steps=4, total_steps=12)
    wanted = [0.5, 1.0, 2.0, 2.0, 1.0 + ROOT_HALF, 1.0, 1.0 - ROOT_HALF, 0.0]
    np.testing.assert_allclose(rates, wanted, atol=1e-6)


def test_warmup_cosine_without_warmup_and_with_a_floor():
    rates = warmup_cosine(jnp.array([0, 5, 10]), base_lr=1.0, warmup_steps=0, total_steps=10, end_lr=0.2)
    np.testing.assert_allclose(rates, [1.0, 0.6, 0.2], atol=1e-6)


def test_warmup_linear_by_hand():
    rates = warmup_linear(jnp.array([0, 1, 2, 4, 6, 9]), base_lr=1.0, warmup_steps=2, total_steps=6, end_lr=0.5)
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.0, 0.75, 0.5, 0.5], atol=1e-6)


def test_warmup_constant_by_hand():
    rates = warmup_constant(jnp.array([0, 1, 2, 3, 100]), base_lr=3.0, warmup_steps=3)
    np.testing.assert_allclose(rates, [1.0, 2.0, 3.0, 3.0, 3.0], atol=1e-6)


def test_warmup_rsqrt_is_continuous_at_its_peak():
    rates = warmup_rsqrt(jnp.array([0, 3, 15, 63]), base_lr=2.0, warmup_steps=4)
    np.testing.assert_allclose(rates, [0.5, 2.0, 1.0, 0.5], atol=1e-6)


def test_linear_schedule_is_constant_outside_its_line():
    values = linear_schedule(jnp.array([-3, 0, 1, 4, 9]), start=-1.0, end=3.0, num_steps=4)
    np.testing.assert_allclose(values, [-1.0, -1.0, 0.0, 3.0, 3.0], atol=1e-6)


def test_cosine_schedule_goes_on_as_a_wave():
    values = cosine_schedule(jnp.array([0, 1, 2, 3, 6]), start=1.0, end=3.0, num_steps=3)
    np.testing.assert_allclose(values, [1.0, 1.5, 2.5, 3.0, 1.0], atol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", ["constant", "cosine", "warmup_constant", "warmup_cosine", "warmup_linear"])
def test_shape_and_dtype(name, shape):
    warmup = {"warmup_steps": 2} if name.startswith("warmup") else {}
    schedule = build_schedule(name, learning_rate=0.1, total_steps=8, **warmup)
    rates = jax.jit(schedule)(jnp.full(shape, 3, jnp.int32))
    assert rates.shape == shape
    assert rates.dtype == jnp.float32


@pytest.mark.parametrize("name", ["cosine", "warmup_cosine", "warmup_linear"])
def test_the_rate_stays_at_its_end_after_the_last_step(name):
    warmup = {"warmup_steps": 2} if name.startswith("warmup") else {}
    schedule = build_schedule(name, learning_rate=1.0, total_steps=8, end_lr=0.25, **warmup)
    np.testing.assert_allclose(schedule(jnp.array([8, 9, 16, 1000])), 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("warmup_cosin", {}, "did you mean 'warmup_cosine'"),
        ("warmup_cosine", {"warmup_step": 3}, "'warmup_step'; did you mean 'warmup_steps'"),
        ("warmup_cosine", {"warmup_steps": 3}, "lacks 'total_steps'"),
        ("warmup_linear", {"total_steps": 3}, "lacks 'warmup_steps'"),
        ("warmup_cosine", {"warmup_steps": 9, "total_steps": 9}, "expected 0 <= warmup_steps < total_steps"),
        ("warmup_linear", {"warmup_steps": -1, "total_steps": 9}, "warmup_steps is -1"),
        ("warmup_rsqrt", {"warmup_steps": 0}, "expected at least 1"),
        ("constant", {"warmup_steps": 2}, "constant has no argument 'warmup_steps'"),
    ],
)
def test_impossible_schedules(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(name, learning_rate=0.1, **settings)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import l2_normalize


def test_hand_derived():
    np.testing.assert_allclose(l2_normalize(jnp.array([[3.0, 4.0], [0.0, -2.0]])), [[0.6, 0.8], [0.0, -1.0]], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axis(axis):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    expected = x / np.linalg.norm(x, axis=axis, keepdims=True)
    np.testing.assert_allclose(l2_normalize(x, axis=axis), expected, rtol=1e-5)


def test_eps_is_the_smallest_divisor():
    np.testing.assert_allclose(
        l2_normalize(jnp.array([[0.3, 0.4], [3.0, 4.0]]), eps=2.0), [[0.15, 0.2], [0.6, 0.8]], rtol=1e-6
    )


def test_a_zero_row_stays_zero_and_gets_no_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_array_equal(l2_normalize(x)[0], 0.0)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(l2_normalize(x))))(x)
    # Row (3, 4): (1 - n n^T) 1 / 5 with n = (0.6, 0.8).
    np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.032, -0.024]], atol=1e-7)


def test_nan_is_not_swallowed():
    normalized = l2_normalize(jnp.array([[jnp.nan, 1.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(np.isnan(normalized).any(axis=1), [True, False])


@pytest.mark.parametrize("length", [1e-15, 1e-6, 1e6, 1e15])
def test_gradients_are_finite_at_any_length(length):
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(l2_normalize(x))))(jnp.array([length, 0.5 * length]))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_norm_is_taken_in_float32(dtype):
    x = jnp.full((1, 1024), 100.0, dtype)  # the square of the norm, 10,240,000, is beyond float16
    normalized = l2_normalize(x)
    assert normalized.dtype == x.dtype
    np.testing.assert_array_equal(normalized, jnp.full((1, 1024), 1 / 32, dtype))


def test_integers_become_float32():
    assert l2_normalize(jnp.array([3, 4])).dtype == jnp.float32

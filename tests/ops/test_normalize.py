import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import l2_normalize, layer_norm


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


def naive_layer_norm(x, scale, bias, eps):
    x = np.asarray(x, np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * scale + bias


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6)])
def test_layer_norm_equals_a_naive_one(shape):
    rng = np.random.default_rng(0)
    x, scale, bias = 5 + rng.normal(size=shape).astype(np.float32), rng.normal(size=6), rng.normal(size=6)
    found = layer_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias), eps=1e-3)
    np.testing.assert_allclose(found, naive_layer_norm(x, scale, bias, 1e-3), rtol=1e-5, atol=1e-5)


def test_the_gradient_of_layer_norm_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    x, scale, bias, tangent = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 6), 6, 6, (4, 6)))

    def definition(x, scale, bias):
        spread = jnp.sqrt(jnp.var(x, axis=-1, keepdims=True) + 1e-5)
        return jnp.sum(tangent * ((x - jnp.mean(x, axis=-1, keepdims=True)) / spread * scale + bias))

    def ours(x, scale, bias):
        return jnp.sum(tangent * layer_norm(x, scale, bias))

    for found, expected in zip(
        jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(x, scale, bias),
        jax.jit(jax.grad(definition, argnums=(0, 1, 2)))(x, scale, bias),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    primals = x, scale, bias
    _, forward = jax.jvp(ours, primals, primals)  # forward mode works too
    _, expected = jax.jvp(definition, primals, primals)
    np.testing.assert_allclose(forward, expected, rtol=1e-4)


def test_the_variance_of_layer_norm_does_not_cancel():
    x = jnp.array([[1e4, 1e4 + 1, 1e4 + 2]])
    np.testing.assert_allclose(layer_norm(x, jnp.ones(3), jnp.zeros(3)), [[-1.2247, 0.0, 1.2247]], atol=1e-3)


def test_layer_norm_of_equal_values_is_the_bias_with_a_finite_gradient():
    x, bias = jnp.full((2, 4), 3.0), jnp.arange(4.0)
    np.testing.assert_array_equal(layer_norm(x, jnp.ones(4), bias), np.tile(bias, (2, 1)))
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(layer_norm(x, jnp.ones(4), bias) ** 2))(x)))


def test_layer_norm_computes_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64)), jnp.bfloat16)
    found = layer_norm(x, jnp.ones(64, jnp.bfloat16), jnp.zeros(64, jnp.bfloat16))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, naive_layer_norm(x.astype(jnp.float32), 1, 0, 1e-5), rtol=1e-5, atol=1e-5)

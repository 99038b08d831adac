import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import gelu, quick_gelu

POINTS = [-4.0, -1.5, -0.3, 0.0, 0.7, 2.0, 6.0]


def test_gelu_is_exact():
    expected = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in POINTS]
    np.testing.assert_allclose(gelu(jnp.array(POINTS)), expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_gelu_is_its_closed_form():
    def derivative(x):
        return 0.5 * (1 + math.erf(x / math.sqrt(2))) + x * math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    gradient = jax.vmap(jax.grad(gelu))(jnp.array(POINTS))
    np.testing.assert_allclose(gradient, [derivative(x) for x in POINTS], rtol=1e-5, atol=1e-6)


def test_quick_gelu_by_hand():
    # x / (1 + exp(-1.702 x)) at 0, 1 and -2.
    expected = [0.0, 1 / (1 + math.exp(-1.702)), -2 / (1 + math.exp(3.404))]
    np.testing.assert_allclose(quick_gelu(jnp.array([0.0, 1.0, -2.0])), expected, rtol=1e-6)


def test_the_two_differ_by_at_most_two_hundredths():
    x = jnp.linspace(-8, 8, 1001)
    assert 0.015 < float(jnp.max(jnp.abs(gelu(x) - quick_gelu(x)))) < 0.021


@pytest.mark.parametrize("x", [-3.0, -2.0, 1.0])
def test_gelu_of_bfloat16_keeps_its_digits(x):
    value = gelu(jnp.bfloat16(x))
    assert value.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(value), float(gelu(jnp.float32(x))), rtol=2**-8)

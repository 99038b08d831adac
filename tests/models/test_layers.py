import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.models.layers import Dense, LayerNorm, PatchEmbed
from tests.models.random_params import random_params

KEY = jax.random.key(0)


def test_dense_is_flax_dense():
    x = jax.random.normal(KEY, (2, 3, 4, 5))
    params = {"params": random_params(nn.Dense(6), x)}
    np.testing.assert_allclose(
        jax.jit(Dense(6).apply)(params, x), jax.jit(nn.Dense(6).apply)(params, x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("use_bias", [False, True])
def test_patch_embed_is_a_convolution(use_bias):
    images = jax.random.normal(KEY, (2, 6, 9, 3))
    settings = {"features": 5, "kernel_size": (3, 3), "strides": (3, 3), "use_bias": use_bias}
    convolution = nn.Conv(**settings, padding="VALID")
    params = {"params": random_params(convolution, images)}
    expected = jax.jit(convolution.apply)(params, images)
    assert expected.shape == (2, 2, 3, 5)
    np.testing.assert_allclose(jax.jit(PatchEmbed(**settings).apply)(params, images), expected, rtol=1e-5, atol=1e-5)


def test_layer_norm_survives_a_large_mean():
    # Spread 1 around 10000: E[x^2] - E[x]^2 has no digits left in float32.
    x = 10000.0 + jnp.array([[-1.0, 1.0, -1.0, 1.0]])
    normed = jax.jit(LayerNorm().apply)(jax.jit(LayerNorm().init)(KEY, x), x)
    np.testing.assert_allclose(normed, [[-1, 1, -1, 1]], rtol=1e-4)


def test_layer_norm_of_bfloat16_reduces_in_float32():
    x = jax.random.normal(KEY, (4, 512)).astype(jnp.bfloat16)
    module = LayerNorm(dtype=jnp.bfloat16)
    normed = jax.jit(module.apply)(jax.jit(module.init)(KEY, x), x)
    assert normed.dtype == jnp.bfloat16
    wide = x.astype(jnp.float32)
    expected = (wide - wide.mean(-1, keepdims=True)) / jnp.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(normed.astype(jnp.float32), expected, rtol=2**-8, atol=1e-6)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.models import Attention
from tests.models.random_params import random_params

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def cross():
    """Two heads, queries of width 6 and keys of width 4."""
    q_in, kv_in = jax.random.normal(KEY, (2, 3, 6)), jax.random.normal(KEY, (2, 5, 4))
    module = Attention(num_heads=2)
    params = random_params(module, q_in, kv_in)
    return module, params, q_in, kv_in


def test_against_loops_over_heads(cross):
    module, params, q_in, kv_in = cross
    p = jax.tree.map(np.asarray, params)
    query = np.asarray(q_in) @ p["query"]["kernel"] + p["query"]["bias"]
    key, value = (np.asarray(kv_in) @ p[name]["kernel"] + p[name]["bias"] for name in ("key", "value"))
    attended = np.zeros((2, 3, 6))
    for b, head, q in np.ndindex(2, 2, 3):
        columns = slice(3 * head, 3 * head + 3)
        weights = np.exp(key[b, :, columns] @ query[b, q, columns] / 3**0.5)
        attended[b, q, columns] = weights / weights.sum() @ value[b, :, columns]
    expected = attended @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, q_in, kv_in), expected, rtol=1e-4, atol=1e-5)


def test_kernels_are_matrices(cross):
    shapes = {name: layer["kernel"].shape for name, layer in cross[1].items()}
    assert shapes == {"query": (6, 6), "key": (4, 6), "value": (4, 6), "out": (6, 6)}


def test_self_attention_is_attention_to_itself():
    x = jax.random.normal(KEY, (1, 4, 6))
    module = Attention(num_heads=3)
    params = {"params": random_params(module, x)}
    np.testing.assert_array_equal(jax.jit(module.apply)(params, x), jax.jit(module.apply)(params, x, x))


def test_a_query_without_keys_gets_the_bias_of_out(cross):
    module, params, q_in, kv_in = cross
    mask = jnp.array([False, True]).reshape(2, 1, 1, 1)
    out = jax.jit(module.apply)({"params": params}, q_in, kv_in, mask=mask)
    np.testing.assert_allclose(out[0], jnp.broadcast_to(params["out"]["bias"], (3, 6)), rtol=1e-6)
    np.testing.assert_allclose(out[1], jax.jit(module.apply)({"params": params}, q_in, kv_in)[1], rtol=1e-5)


def test_probabilities_and_heads_have_paths(cross):
    module, params, q_in, kv_in = cross
    seen = {}

    def record(call, args, kwargs, context):
        seen["/".join(context.module.path)] = value = call(*args, **kwargs)
        return value

    with nn.intercept_methods(record):
        module.apply({"params": params}, q_in, kv_in)
    assert seen["probs"].shape == (2, 2, 3, 5)
    np.testing.assert_allclose(seen["probs"].sum(-1), 1.0, rtol=1e-6)
    assert seen["heads"].shape == (2, 2, 3, 3)


def test_edited_probabilities_change_the_output(cross):
    module, params, q_in, kv_in = cross

    def uniform(call, args, kwargs, context):
        value = call(*args, **kwargs)
        return jnp.full_like(value, 1 / 5) if context.module.name == "probs" else value

    with nn.intercept_methods(uniform):
        out = module.apply({"params": params}, q_in, kv_in)
    value = kv_in @ params["value"]["kernel"] + params["value"]["bias"]
    mean = value.mean(1, keepdims=True) @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(out, jnp.broadcast_to(mean, out.shape), rtol=1e-4, atol=1e-5)


def test_width_must_be_divisible_by_heads():
    with pytest.raises(ValueError, match="width 6 is not divisible by num_heads 4"):
        jax.eval_shape(Attention(num_heads=4).init, KEY, jnp.ones((1, 2, 6)))

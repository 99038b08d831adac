import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import PostNormLayer
from mmjax.paths import flatten
from tests.models.random_params import random_params

KEY = jax.random.key(0)
TOKENS = jax.random.normal(jax.random.key(1), (2, 4, 6))
CONTEXT = jax.random.normal(jax.random.key(2), (2, 3, 5))
MASK = jnp.array([[True, True, True, False], [True, True, False, False]])
CONTEXT_MASK = jnp.array([[True, False, True], [True, True, True]])
LAYER = PostNormLayer(num_heads=2, mlp_dim=7)


@pytest.fixture(scope="module")
def params():
    return random_params(LAYER, TOKENS, context=CONTEXT)


@functools.partial(jax.jit, static_argnames="settings")
def apply(params, tokens, settings=(), **inputs):
    return LAYER.clone(**dict(settings)).apply({"params": params}, tokens, **inputs)


def reference(params, tokens, mask, context=None, context_mask=None):
    """One example by loops over heads and queries, in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(part, x):
        return x @ part["kernel"] + part["bias"]

    def norm(part, x):
        deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return (x - x.mean(-1, keepdims=True)) / deviation * part["scale"] + part["bias"]

    def attention(part, x, keys, valid):
        query, key, value = dense(part["query"], x), dense(part["key"], keys), dense(part["value"], keys)
        out = np.zeros_like(query)
        for columns in (slice(0, 3), slice(3, 6)):
            for t in range(len(x)):
                scores = [query[t, columns] @ key[s, columns] / math.sqrt(3) for s in range(len(keys)) if valid[s]]
                weights = np.exp(scores) / np.exp(scores).sum()
                out[t, columns] = weights @ value[valid][:, columns]
        return dense(part["out"], out)

    gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
    x = np.asarray(tokens, np.float64)
    x = norm(params["ln_1"], x + attention(params["attn"], x, x, mask))
    if context is not None:
        keys = np.asarray(context, np.float64)
        x = norm(params["ln_cross"], x + attention(params["cross_attn"], x, keys, context_mask))
    return norm(params["ln_2"], x + dense(params["mlp"]["fc2"], gelu(dense(params["mlp"]["fc1"], x))))


@pytest.mark.parametrize("cross", [False, True])
def test_it_is_the_naive_layer(params, cross):
    inputs = {"context": CONTEXT, "context_mask": CONTEXT_MASK} if cross else {}
    found = apply(params, TOKENS, mask=MASK, **inputs)
    for row in range(2):
        given = {name: np.asarray(value[row]) for name, value in inputs.items()}
        expected = reference(params, TOKENS[row], np.asarray(MASK[row]), **given)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_without_context_there_are_no_parameters_for_it():
    alone = jax.eval_shape(LAYER.init, KEY, TOKENS)["params"]
    crossed = jax.eval_shape(LAYER.init, KEY, TOKENS, context=CONTEXT)["params"]
    assert set(crossed) - set(alone) == {"cross_attn", "ln_cross"}
    assert flatten(crossed)["cross_attn/key/kernel"].shape == (5, 6)


def test_masked_tokens_are_absent(params):
    found = apply(params, TOKENS, mask=MASK, context=CONTEXT, context_mask=CONTEXT_MASK)
    alone = apply(params, TOKENS[:1, :3], context=CONTEXT[:1, jnp.array([0, 2])])
    np.testing.assert_allclose(found[0, :3], alone[0], rtol=1e-4, atol=1e-5)


def test_a_mask_may_be_one_of_pairs(params):
    pairs = jnp.broadcast_to(MASK[:, None, None, :], (2, 2, 4, 4))
    np.testing.assert_array_equal(apply(params, TOKENS, mask=pairs), apply(params, TOKENS, mask=MASK))


def test_gradients_are_finite_where_nothing_is_attended_to(params):
    def total(params):
        masks = {"mask": jnp.zeros((2, 4), bool), "context": CONTEXT, "context_mask": jnp.zeros((2, 3), bool)}
        return jnp.sum(apply(params, TOKENS, **masks) ** 2)

    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.grad(total)(params)))


def test_dropout_is_on_when_not_deterministic(params):
    layer = LAYER.clone(dropout_rate=0.5)
    on = layer.apply({"params": params}, TOKENS, deterministic=False, rngs={"dropout": KEY})
    assert bool(jnp.any(on != apply(params, TOKENS)))
    np.testing.assert_allclose(layer.apply({"params": params}, TOKENS), apply(params, TOKENS), rtol=1e-5, atol=1e-6)


def test_fused_attention_computes_the_same(params):
    inputs = {"mask": MASK, "context": CONTEXT, "context_mask": CONTEXT_MASK}
    fused = apply(params, TOKENS, settings=(("attention", "fused"),), **inputs)
    np.testing.assert_allclose(fused, apply(params, TOKENS, **inputs), rtol=1e-4, atol=1e-5)

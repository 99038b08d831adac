import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import Attention, AttentionalPooler, Block, CrossAttentionBlock, MapHead, Mlp
from mmjax.ops import gelu
from tests.models.random_params import random_params

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 3, 8))


def test_gated_mlp_by_hand():
    params = random_params(Mlp(6, "swiglu"), X)
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        "gate": (8, 6),
        "up": (8, 6),
        "down": (6, 8),
    }
    gate, up = (X @ params[name]["kernel"] + params[name]["bias"] for name in ("gate", "up"))
    expected = (gate / (1 + jnp.exp(-gate)) * up) @ params["down"]["kernel"] + params["down"]["bias"]
    np.testing.assert_allclose(jax.jit(Mlp(6, "swiglu").apply)({"params": params}, X), expected, rtol=1e-4, atol=1e-6)


def test_activations_differ():
    params = random_params(Mlp(6), X)
    hidden = gelu(X @ params["fc1"]["kernel"] + params["fc1"]["bias"])
    expected = hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    np.testing.assert_allclose(jax.jit(Mlp(6).apply)({"params": params}, X), expected, rtol=1e-4, atol=1e-5)
    for act in ("quick_gelu", "gelu_tanh"):
        difference = jnp.max(jnp.abs(jax.jit(Mlp(6, act).apply)({"params": params}, X) - expected))
        assert 1e-6 < difference < 0.05


def test_unknown_activation_lists_the_known():
    with pytest.raises(ValueError, match=r"Mlp: act is 'gelo', expected one of 'gelu', 'gelu_tanh', 'quick_gelu'"):
        jax.eval_shape(Mlp(6, "gelo").init, KEY, X)


def test_layer_scale_scales_the_branches():
    block = Block(num_heads=2, layer_scale=0.5)
    params = random_params(block, X)
    zeros = params | {"gamma_1": jnp.zeros(8), "gamma_2": jnp.zeros(8)}
    np.testing.assert_array_equal(jax.jit(block.apply)({"params": zeros}, X), X)
    ones = params | {"gamma_1": jnp.ones(8), "gamma_2": jnp.ones(8)}
    plain = {name: value for name, value in params.items() if not name.startswith("gamma")}
    np.testing.assert_allclose(
        jax.jit(block.apply)({"params": ones}, X), jax.jit(Block(2).apply)({"params": plain}, X), rtol=1e-6
    )


def test_dropout_needs_a_key_and_keeps_the_mean():
    block, plain = Block(num_heads=2, dropout_rate=0.5), Block(num_heads=2)
    params = {"params": random_params(block, X)}
    np.testing.assert_array_equal(jax.jit(block.apply)(params, X), jax.jit(plain.apply)(params, X))

    @jax.jit
    @jax.vmap
    def sample(key):
        return block.apply(params, X, deterministic=False, rngs={"dropout": key})

    samples = sample(jax.random.split(KEY, 64))
    assert bool(jnp.any(samples[0] != samples[1]))
    # Half of the entries of the attention branch are dropped, so about a quarter of the residuals pass unchanged.
    assert 0.15 < float(jnp.mean(samples == X)) < 0.35


def test_cross_attention_block_reads_the_context():
    context = jax.random.normal(jax.random.key(1), (2, 5, 6))
    block = CrossAttentionBlock(num_heads=2)
    params = {"params": random_params(block, X, context)}
    out = jax.jit(block.apply)(params, X, context)
    assert out.shape == X.shape
    np.testing.assert_allclose(jax.jit(block.apply)(params, X, context[:, ::-1]), out, rtol=1e-4, atol=1e-5)
    assert float(jnp.max(jnp.abs(jax.jit(block.apply)(params, X, context + context**2) - out))) > 1e-3


@pytest.mark.parametrize(
    ("pooler", "shape"), [(MapHead(num_heads=2), (2, 8)), (AttentionalPooler(3, 4, num_heads=2), (2, 3, 4))]
)
def test_poolers_ignore_the_order_of_tokens(pooler, shape):
    params = {"params": random_params(pooler, X)}
    pooled = jax.jit(pooler.apply)(params, X)
    assert pooled.shape == shape
    np.testing.assert_allclose(jax.jit(pooler.apply)(params, X[:, jnp.array([2, 0, 1])]), pooled, rtol=1e-4, atol=1e-6)
    assert float(jnp.max(jnp.abs(jax.jit(pooler.apply)(params, X[:, :2]) - pooled))) > 1e-4


def test_map_head_adds_its_mlp_to_what_the_probe_reads():
    head = MapHead(num_heads=2)
    params = random_params(head, X)
    probe = jnp.broadcast_to(params["probe"], (2, 1, 8))
    read = jax.jit(Attention(2).apply)({"params": params["attn"]}, probe, X)[:, 0]
    silent = params["mlp"] | {"fc2": {"kernel": np.zeros((32, 8)), "bias": np.arange(8.0)}}
    pooled = jax.jit(head.apply)({"params": params | {"mlp": silent}}, X)
    np.testing.assert_allclose(pooled, read + np.arange(8), rtol=1e-5, atol=1e-5)

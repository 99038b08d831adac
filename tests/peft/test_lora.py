import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import peft
from mmjax.intercept import tap
from mmjax.paths import flatten
from mmjax.peft.low_rank import lora_scale
from tests.intercept import toys
from tests.peft.towers import IDS, IMAGES, image_tower, perturbed, text_tower, variables

X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)


def adapted(adapter, model, *inputs):
    """Parameters, those of the adapter after some training, and what the adapted and the merged model return."""
    params = variables(model, *inputs)
    tree = perturbed(adapter.init(jax.random.key(0), model.apply, params, *inputs), seed=2)
    return (
        params,
        tree,
        adapter.wrap(model.apply)(params, tree, *inputs),
        model.apply(adapter.merge(params, tree), *inputs),
    )


def test_dora_by_hand():
    """x V m / ||V|| + bias: column norms of V = kernel + s a b are 5 and 2."""
    kernel, bias = jnp.array([[3.0, 0.0], [2.0, 2.0]]), jnp.array([1.0, -1.0])
    a, b, magnitude = jnp.array([[0.0], [1.0]]), jnp.array([[1.0, 0.0]]), jnp.array([10.0, 3.0])
    arguments = {"alpha": 2.0, "rank": 1, "bias": bias}
    found = peft.dora_linear(jnp.array([[1.0, 1.0]]), kernel, a, b, magnitude, **arguments)
    np.testing.assert_allclose(found["value"], [[(3 + 4) * 10 / 5 + 1, 2 * 3 / 2 - 1]], rtol=1e-6)
    np.testing.assert_allclose(found["merged_kernel"], [[6.0, 0.0], [8.0, 3.0]], rtol=1e-6)


def test_dora_of_an_empty_column_is_finite():
    zero = jnp.zeros((2, 2))
    loss = lambda m: peft.dora_linear(jnp.ones((1, 2)), zero, zero, zero, m, alpha=1, rank=2)["value"].sum()  # noqa: E731
    assert jnp.all(jnp.isfinite(jax.grad(loss)(jnp.zeros(2))))


@pytest.mark.parametrize(
    ("layer", "kernel_axes"),
    [
        (nn.DenseGeneral((2, 3), axis=-1), 3),
        (nn.DenseGeneral(5, axis=(-2, -1)), 3),
        (nn.Conv(4, (3, 3), strides=2, padding="SAME"), 4),
        (nn.Conv(4, (2, 2), padding="CIRCULAR", use_bias=False), 4),
    ],
    ids=["dense_general_out", "dense_general_in", "conv", "conv_circular"],
)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_kernels_of_any_shape(layer, kernel_axes, dora):
    model = nn.Sequential([layer])
    params, tree, found, merged = adapted(peft.lora("layers_0", rank=2, dora=dora), model, X)
    assert params["params"]["layers_0"]["kernel"].ndim == kernel_axes
    np.testing.assert_allclose(found, merged, rtol=1e-4, atol=1e-5)
    assert np.abs(found - model.apply(params, X)).max() > 0.01
    assert tree["layers_0"]["b"].shape[0] == 2


def test_a_convolution_is_lora_conv():
    model = nn.Sequential([nn.Conv(4, (3, 3), strides=2, padding="SAME")])
    params, tree, found, _ = adapted(peft.lora("layers_0", rank=2, alpha=3.0), model, X)
    own = {**params["params"]["layers_0"], **tree["layers_0"]}
    expected = peft.lora_conv(X, **own, alpha=3.0, rank=2, stride=2, padding="SAME")["value"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_flax_attention():
    model = nn.Sequential([nn.MultiHeadDotProductAttention(2, qkv_features=6)])
    x = X[:, 0]
    adapter = peft.lora(["**/query", "**/out"], rank=2)
    params = variables(model, x, x)
    tree = perturbed(adapter.init(jax.random.key(0), model.apply, params, x, x), seed=2)
    assert {path: leaf.shape for path, leaf in flatten(tree["layers_0"]).items()} == {
        "query/a": (3, 2), "query/b": (2, 6), "out/a": (6, 2), "out/b": (2, 3),
    }  # fmt: skip
    np.testing.assert_allclose(
        adapter.wrap(model.apply)(params, tree, x, x),
        model.apply(adapter.merge(params, tree), x, x),
        rtol=1e-4,
        atol=1e-6,
    )


def test_embeddings_also_where_they_give_the_logits():
    class Tied(nn.Module):
        @nn.compact
        def __call__(self, ids):
            embed = nn.Embed(7, 4, name="embed")
            return embed(ids), embed.attend(jnp.tanh(embed(ids)))

    adapter = peft.lora("embed", rank=2)
    start = adapter.init(jax.random.key(0), Tied().apply, variables(Tied(), IDS), IDS)
    assert not start["embed"]["a"].any()
    assert start["embed"]["b"].any()
    _, _, found, merged = adapted(adapter, Tied(), IDS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, merged)


def test_settings_by_pattern():
    targets = {"**/query": {"rank": 3, "alpha": 6.0}, "**/attn/*{y,e}": {}, "**/fc1": {"rslora": True}}
    adapter = peft.lora(targets, rank=4, alpha=2.0)
    params, tree, found, merged = adapted(adapter, image_tower(), IMAGES)
    block = tree["encoder"]["block_1"]
    assert [block["attn"][name]["a"].shape[1] for name in ("query", "key", "value")] == [3, 4, 4]
    np.testing.assert_allclose(found[0], merged[0], rtol=1e-4, atol=1e-5)
    change = flatten(adapter.merge(params, tree)["params"]["encoder"]["block_1"])
    before = flatten(params["params"]["encoder"]["block_1"])
    for path, scale in {"attn/query": 2.0, "attn/key": 0.5, "mlp/fc1": 1.0}.items():
        pair = flatten(block)
        expected = before[f"{path}/kernel"] + scale * (pair[f"{path}/a"] @ pair[f"{path}/b"])
        np.testing.assert_allclose(change[f"{path}/kernel"], expected, rtol=1e-4, atol=1e-6)


def test_scales():
    assert [lora_scale(alpha=8, rank=16), lora_scale(alpha=8, rank=16, rslora=True)] == [0.5, 2.0]


class TestDropout:
    ADAPTER = peft.lora("layers_*", rank=2, dropout=0.5)
    MODEL = nn.Sequential([nn.Dense(3), nn.Dense(3)])
    X = np.ones((64, 3), np.float32)

    def branch(self, **kwargs):
        """What the branch of the first layer adds, where the second layer is the identity."""
        eye = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}
        params = {"params": {"layers_0": eye, "layers_1": eye}}
        pair = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 3))}
        tree = {"layers_0": pair, "layers_1": jax.tree.map(jnp.zeros_like, pair)}
        return self.ADAPTER.wrap(self.apply)(params, tree, self.X, **kwargs) - self.X

    def apply(self, params, x, rngs=None, deterministic=None):
        return self.MODEL.apply(params, x)

    def test_is_off_without_a_key(self):
        np.testing.assert_allclose(self.branch(), np.full((64, 3), 12.0))
        np.testing.assert_allclose(
            self.branch(rngs={"dropout": jax.random.key(0)}, deterministic=True), np.full((64, 3), 12.0)
        )

    def test_scales_what_is_left_and_follows_the_key(self):
        first, again, other = (self.branch(rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert np.any(first != other)
        assert set(np.unique(np.round(first, 4))) == {0.0, 8.0, 16.0, 24.0}
        assert abs(first.mean() - 12) < 2

    def test_training_without_a_key_is_refused(self):
        with pytest.raises(ValueError, match=r"lora: deterministic is False, .* rngs={'dropout': key}"):
            self.branch(deterministic=False)

    @pytest.mark.parametrize("kind", ["unrolled", "scan_remat"])
    def test_layers_draw_apart(self, kind):
        model, params = toys.Model(kind), jax.tree.map(jnp.zeros_like, toys.variables(kind))
        x = np.ones((2, toys.WIDTH), np.float32)
        adapter = peft.lora("**/mlp/fc1", rank=1, dropout=0.5)
        tree = jax.tree.map(jnp.ones_like, adapter.init(jax.random.key(0), model.apply, params, x))
        f = tap(adapter.wrap(lambda params, x, rngs: model.apply(params, x)), "**/mlp/fc1")
        _, values = f(params, tree, x, rngs={"dropout": jax.random.key(1)})
        layers = values["encoder/blocks/mlp/fc1"] if kind == "scan_remat" else list(values.values())
        assert len({layer.tobytes() for layer in map(np.asarray, layers)}) > 1


def test_arithmetic_is_float32_whatever_the_dtype_of_the_model():
    """An update below bfloat16's resolution of the kernel's own product is not lost before it is added."""
    model = nn.Sequential([nn.Dense(1, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, use_bias=False)])
    params = {"params": {"layers_0": {"kernel": jnp.zeros((300, 1), jnp.bfloat16)}}}
    tree = {"layers_0": {"a": jnp.full((300, 1), 1.001), "b": jnp.ones((1, 1))}}
    adapter = peft.lora("layers_0", rank=1, alpha=1.0)
    value = adapter.wrap(model.apply)(params, tree, jnp.ones((1, 300), jnp.bfloat16))
    assert value.dtype == jnp.bfloat16
    assert value.item() == jnp.bfloat16(300.3)
    assert (
        adapter.init(jax.random.key(0), model.apply, params, jnp.ones((1, 300)))["layers_0"]["a"].dtype == jnp.float32
    )
    merged = adapter.merge(params, tree)["params"]["layers_0"]["kernel"]
    assert merged.dtype == jnp.bfloat16
    np.testing.assert_array_equal(merged, jnp.full((300, 1), jnp.bfloat16(1.001)))


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (peft.lora("**/block_0/mlp"), r"'encoder/block_0/mlp' is a Mlp, expected Dense, .*; below it: fc1, fc2"),
        (peft.lora("token_embedding", dora=True), "'token_embedding' is an Embed, for which there is no DoRA"),
        (peft.lora("**/block_{0..5}/attn/query"), r"goes beyond the model, which has no '\*\*/block_2/attn/query'"),
        (peft.lora(["**/query", "**/block_0/attn/query"]), "'.*block_0/attn/query' is left nothing by the patterns"),
        (peft.lora("**/qkv"), r"match none of \d+ paths. '\*\*/qkv': did you mean|there are"),
    ],
    ids=["container", "dora", "range", "claimed", "unmatched"],
)
def test_what_cannot_be_adapted_is_refused_before_anything_is_built(adapter, message):
    model = text_tower()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda params: adapter.init(jax.random.key(0), model.apply, params, IDS), variables(model, IDS))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=re.escape("'**/query' has the setting 'rnak'; did you mean 'rank'")):
        peft.lora({"**/query": {"rnak": 3}})
    with pytest.raises(ValueError, match="rank is 0"):
        peft.lora(rank=0)


def test_an_adapter_of_other_layers_is_refused():
    """Of scanned layers on an unrolled tower it would silently do nothing."""
    model, adapter = image_tower(), peft.lora()
    tree = {"encoder": {"blocks": {"attn": {"query": {"a": jnp.ones((2, 8, 1)), "b": jnp.ones((2, 1, 8))}}}}}
    for function in (adapter.merge, lambda params, tree: adapter.wrap(model.apply)(params, tree, IMAGES)):
        with pytest.raises(ValueError, match=r"parameters for 'encoder/blocks/attn/query', .*stack_layers"):
            function(variables(model, IMAGES), tree)

"""Adapters inside a block, against the block by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import peft
from mmjax.intercept import tap
from mmjax.models import Attention, Block, Mlp, PostNormLayer
from mmjax.models.layers import LayerNorm
from mmjax.paths import NoMatchError
from tests.peft.towers import perturbed, variables

WIDTH = 4
X = np.random.default_rng(0).normal(size=(2, 3, WIDTH)).astype(np.float32)


class Stack(nn.Module):
    """One block, in a model of which it is a part."""

    post: bool = False
    layer_scale: float | None = None

    @nn.compact
    def __call__(self, x):
        if self.post:
            return PostNormLayer(2, 8, name="block_0")(x)
        return Block(2, 2.0, layer_scale=self.layer_scale, name="block_0")(x)


def by_hand(model, params, x, attn=lambda y: y, mlp=lambda y, stream: y, out=lambda y, stream: y):
    """The block with functions after its attention and MLP, and after the MLP has been added."""
    base = params["params"]["block_0"]

    def part(module, name):
        return lambda x: module.apply({"params": base[name]}, x)

    eps = 1e-12 if model.post else 1e-5
    ln_1, ln_2 = (part(LayerNorm(eps), name) for name in ("ln_1", "ln_2"))
    attention, feedforward = part(Attention(2), "attn"), part(Mlp(8), "mlp")
    if model.post:
        x = ln_1(x + attn(attention(x)))
        return ln_2(x + mlp(feedforward(x), x))
    gamma = [base.get(f"gamma_{i}", 1.0) for i in (1, 2)]
    x = x + gamma[0] * attn(attention(ln_1(x)))
    return out(x + gamma[1] * mlp(feedforward(ln_2(x)), x), x)


def bottleneck(params, x, *, scale=1.0, residual=True):
    hidden = np.maximum(x @ params["down"]["kernel"] + params["down"]["bias"], 0)
    y = scale * (hidden @ params["up"]["kernel"] + params["up"]["bias"])
    return y + x if residual else y


@pytest.mark.parametrize("model", [Stack(), Stack(post=True), Stack(layer_scale=0.5)], ids=["pre", "post", "scaled"])
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_placements(model, placement):
    adapter = peft.bottleneck(3, placement=placement, norm="post" if model.post else "pre", scale=0.5)
    params = variables(model, X)
    tree = perturbed(adapter.init(jax.random.key(0), model.apply, params, X), seed=2)
    own = tree["block_0"]

    def after(name):
        return lambda y, stream=None: bottleneck(own[name], y, scale=0.5)

    def beside(y, stream):
        return y + bottleneck(own.get("mlp", own), stream, scale=0.5, residual=False)

    changes = {
        "houlsby": {"attn": after("attn"), "mlp": after("mlp")} if placement == "houlsby" else {},
        "pfeiffer": {"mlp": after("mlp")} if placement == "pfeiffer" else {},
        "parallel": {"mlp" if model.post else "out": beside},
    }[placement]
    found = adapter.wrap(model.apply)(params, tree, X)
    np.testing.assert_allclose(found, by_hand(model, params, X, **changes), rtol=1e-4, atol=1e-5)
    assert np.abs(found - model.apply(params, X)).max() > 0.01


def test_adaptformers_scale_is_the_default_in_parallel():
    params = variables(Stack(), X)
    ten, one = (peft.bottleneck(3, placement="parallel", scale=scale) for scale in (None, 0.1))
    tree = perturbed(one.init(jax.random.key(0), Stack().apply, params, X), seed=2)
    np.testing.assert_array_equal(*(adapter.wrap(Stack().apply)(params, tree, X) for adapter in (ten, one)))


def test_a_pre_norm_stream_is_not_looked_for_in_a_post_norm_block():
    adapter = peft.bottleneck(3, placement="parallel")
    params = variables(Stack(post=True), X)
    tree = adapter.init(jax.random.key(0), Stack(post=True).apply, params, X)
    with pytest.raises(ValueError, match=r"'block_0' calls attn, .*, ln_1, mlp, ln_2, .* set norm='post'"):
        adapter.wrap(Stack(post=True).apply)(params, tree, X)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=str)
def test_the_bottleneck_keeps_the_dtype_and_computes_in_float32(dtype):
    module = peft.BottleneckAdapter(2, "gelu", "learnable", "in")
    x = jnp.asarray(X, dtype)
    params = perturbed(module.init(jax.random.key(0), x), seed=0)
    found = module.apply(params, x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, module.apply(params, x.astype(jnp.float32)).astype(dtype))


def test_wrong_settings_of_bottlenecks_are_refused():
    for settings in ({"activation": "swish"}, {"layer_norm": "both"}, {"scale": "learned"}):
        with pytest.raises(ValueError, match=f"BottleneckAdapter: {next(iter(settings))} is"):
            peft.BottleneckAdapter(2, **settings).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="placement is 'serial', expected one of 'houlsby'"):
        peft.bottleneck(placement="serial")


def test_ia3_by_hand():
    params = variables(Stack(), X)
    adapter = peft.ia3(inputs="**/mlp/fc2")
    tree = adapter.init(jax.random.key(0), Stack().apply, params, X)
    scales = {"key": [2.0, 1, 1, 1], "value": [1.0, 0, 1, 1], "fc2": [0.0, 2, 1, 1, 1, 1, 1, 1]}
    own = tree["block_0"]
    own["attn"]["key"]["scale_out"], own["attn"]["value"]["scale_out"], own["mlp"]["fc2"]["scale_in"] = (
        jnp.array(scales[name]) for name in ("key", "value", "fc2")
    )
    _, values = tap(adapter.wrap(Stack().apply), "**/{key,value,fc2,hidden}")(params, tree, X)
    _, plain = tap(Stack().apply, "**/{key,value}")(params, X)
    for name in ("key", "value"):
        expected = plain[f"block_0/attn/{name}"] * np.array(scales[name])
        np.testing.assert_allclose(values[f"block_0/attn/{name}"], expected, rtol=1e-6)
    fc2 = params["params"]["block_0"]["mlp"]["fc2"]
    hidden = values["block_0/mlp/hidden"] * np.array(scales["fc2"])
    np.testing.assert_allclose(values["block_0/mlp/fc2"], hidden @ fc2["kernel"] + fc2["bias"], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="ia3: 'block_0/attn' is a Attention, expected a Dense"):
        peft.ia3("**/attn").init(jax.random.key(0), Stack().apply, params, X)


class TestExperts:
    MODULE = peft.BottleneckExperts(3, 2, scale=0.5)

    def by_hand(self, params, x, top_k):
        logits = x @ np.asarray(params["router"]["kernel"])
        kept = np.argsort(-logits, axis=-1)[..., :top_k]
        weights = np.zeros_like(logits)
        np.put_along_axis(weights, kept, np.exp(np.take_along_axis(logits, kept, -1)), -1)
        weights /= weights.sum(-1, keepdims=True)
        experts = [jax.tree.map(lambda leaf, e=e: np.asarray(leaf[e]), params["experts"]) for e in range(3)]
        branches = [bottleneck(own, x, scale=0.5, residual=False) for own in experts]
        return x + sum(weights[..., e : e + 1] * branch for e, branch in enumerate(branches)), weights

    @pytest.mark.parametrize("top_k", [1, 2, None])
    def test_by_hand(self, top_k):
        module = self.MODULE.clone(top_k=top_k)
        params = perturbed(module.init(jax.random.key(0), X), seed=1)["params"]
        expected, weights = self.by_hand(params, X, top_k or 3)
        found, values = tap(module.apply, ["weights", "balance"])({"params": params}, X)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values["weights"], weights, rtol=1e-5, atol=1e-6)
        logits = X @ params["router"]["kernel"]
        shares = np.bincount(np.argmax(logits, -1).ravel(), minlength=3) / 6
        balance = 3 * np.sum(shares * jax.nn.softmax(logits).mean((0, 1)))
        np.testing.assert_allclose(values["balance"], balance, rtol=1e-5)

    def test_equal_logits_choose_no_more_than_k(self):
        module = self.MODULE.clone(top_k=2)
        params = module.init(jax.random.key(0), X)
        params["params"]["router"]["kernel"] = jnp.zeros((WIDTH, 3))
        _, values = tap(module.apply, "weights")(params, X)
        np.testing.assert_array_equal(values["weights"][0, 0], [0.5, 0.5, 0.0])

    def test_the_balance_comes_out_of_the_model_and_trains_the_router(self):
        adapter, params = peft.experts(3, 2), variables(Stack(), X)
        tree = perturbed(adapter.init(jax.random.key(0), Stack().apply, params, X), seed=1)
        f = peft.load_balance(adapter.wrap(Stack().apply))
        output, balance = f(params, tree, X)
        np.testing.assert_array_equal(output, adapter.wrap(Stack().apply)(params, tree, X))
        assert 1 / 3 < balance < 3
        gradient = jax.grad(lambda tree: f(params, tree, X)[1])(tree)["block_0"]["mlp"]
        assert np.any(gradient["router"]["kernel"])
        assert not np.any(gradient["experts"]["up"]["kernel"])
        with pytest.raises(NoMatchError, match="adapter/balance"):
            peft.load_balance(peft.frozen().wrap(Stack().apply))(params, {}, X)

    def test_impossible_numbers_are_refused(self):
        with pytest.raises(ValueError, match="top_k is 4, expected 1 to num_experts 3"):
            self.MODULE.clone(top_k=4).init(jax.random.key(0), X)

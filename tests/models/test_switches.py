"""The switches of memory and speed: none changes what a model is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.intercept import edit, match_report, tap
from mmjax.methods.clip import clip
from mmjax.models import Attention, VisionTransformer, build_dual_encoder
from mmjax.paths import NoMatchError
from tests.models.random_params import random_params

KEY = jax.random.key(0)
SMALL = {
    "image": {"width": 32, "num_layers": 2, "output_dim": 16},
    "text": {"width": 32, "num_layers": 2, "output_dim": 16, "vocab_size": 50, "context_length": 6},
}
IMAGES = jax.random.normal(KEY, (3, 32, 32, 3))
BATCH = {
    "image": IMAGES,
    "text": jax.random.randint(KEY, (3, 6), 1, 50),
    "text_mask": jnp.arange(6) < jnp.array([[6], [3], [4]]),
}


def small(**switches):
    return build_dual_encoder("nano/8", **SMALL, **switches)


def test_one_key_switches_both_towers_and_a_tower_may_differ():
    model = build_dual_encoder("nano/8", dtype="bfloat16", remat="full", scan=True, text={"remat": "dots"})
    for tower in (model.image, model.text):
        assert (tower.dtype, tower.param_dtype, tower.scan) == (jnp.bfloat16, jnp.float32, True)
    assert (model.image.remat, model.text.remat) == ("full", "dots")


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_a_dtype_that_is_none_is_refused(dtype):
    with pytest.raises(ValueError, match=f"image.dtype is '{dtype}', expected a floating dtype such as 'bfloat16'"):
        build_dual_encoder("nano/8", dtype=dtype)


@pytest.mark.slow
def test_bfloat16_computes_near_float32_with_float32_parameters():
    def run(model):
        loss = clip(model).loss
        value = jax.jit(jax.value_and_grad(lambda p: loss(p, {}, BATCH, KEY, 0)[0]))
        return jax.eval_shape(model.apply, {"params": params}, IMAGES)[0].image_embeds.dtype, *value(params)

    params = jax.jit(clip(small()).init)(KEY, BATCH).params
    assert {leaf.dtype for leaf in jax.tree.leaves(clip(small(dtype="bfloat16")).init(KEY, BATCH).params)} == {
        jnp.dtype(jnp.float32)
    }
    dtype, value, gradients = run(small())
    half_dtype, half_value, half_gradients = run(small(dtype="bfloat16"))
    assert (dtype, half_dtype) == (jnp.float32, jnp.bfloat16)
    assert half_value.dtype == jnp.float32
    np.testing.assert_allclose(half_value, value, rtol=2e-2)
    flat, half = (jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(g)]) for g in (gradients, half_gradients))
    assert half.dtype == jnp.float32
    assert 0 < jnp.linalg.norm(half - flat) < 0.05 * jnp.linalg.norm(flat)


@pytest.mark.parametrize("attention", ["fused", "auto"])
def test_fused_attention_gives_the_embeddings_of_einsum(attention):
    params = {"params": random_params(small(), IMAGES, BATCH["text"])}
    inputs = (IMAGES, BATCH["text"])
    found, _ = small(attention=attention).apply(params, *inputs, text_mask=BATCH["text_mask"])
    expected, _ = small().apply(params, *inputs, text_mask=BATCH["text_mask"])
    np.testing.assert_allclose(found.image_embeds, expected.image_embeds, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.text_embeds, expected.text_embeds, rtol=1e-4, atol=1e-5)


def test_probabilities_that_fused_attention_never_holds_cannot_be_tapped_or_edited():
    x = jax.random.normal(KEY, (1, 4, 6))
    module = Attention(num_heads=2, attention="fused")
    params = {"params": random_params(module, x)}
    reason = r"'prob\*' matches only what is absent here, 'probs': attention='fused' .*; set attention='einsum'"
    for intercepted in (
        tap(module.apply, "prob*"),
        edit(module.apply, {"prob*": lambda value, call: value}),
        lambda *args: match_report(module.apply, "prob*", *args),
    ):
        with pytest.raises(NoMatchError, match=reason):
            intercepted(params, x)
    assert tap(module.apply, "*")(params, x)[1].keys() == {"query", "key", "value", "heads", "out"}


def test_absent_places_in_scanned_and_rematerialised_layers_are_named_too():
    model = small(attention="fused", scan=True, remat="full").text
    params = {"params": random_params(model, BATCH["text"])}
    with pytest.raises(NoMatchError, match="'encoder/blocks/attn/probs': attention='fused'"):
        tap(model.apply, "**/attn/probs")(params, BATCH["text"])


def vision(**settings):
    return VisionTransformer(patch_size=8, width=32, num_layers=2, num_heads=2, output_dim=16, **settings)


@pytest.mark.parametrize(("rate", "kept"), [(0.5, 8), (0.75, 4), (0.99, 1)])
def test_training_keeps_a_share_of_the_patches_and_the_whole_prefix(rate, kept):
    model = vision(patch_dropout=rate, num_registers=2)
    params = {"params": random_params(model, IMAGES)}
    _, seen = model.apply(params, IMAGES, deterministic=False, rngs={"dropout": KEY})
    assert seen["tokens"].shape == (3, kept, 32)
    assert seen["prefix"].shape == (3, 3, 32)
    evaluated, _ = model.apply(params, IMAGES)
    np.testing.assert_array_equal(evaluated, vision(num_registers=2).apply(params, IMAGES)[0])


def test_equal_pictures_lose_different_patches_and_another_key_others():
    model = vision(patch_dropout=0.5)
    params = {"params": random_params(model, IMAGES)}
    twice = jnp.repeat(IMAGES[:1], 2, axis=0)
    embed = jax.jit(lambda key: model.apply(params, twice, deterministic=False, rngs={"dropout": key})[0])
    first, second = embed(KEY)
    assert not np.allclose(first, second, rtol=1e-3)
    assert not np.allclose(first, embed(jax.random.key(1))[0], rtol=1e-3)
    np.testing.assert_array_equal(first, embed(KEY)[0])


def test_dropped_patches_cost_nothing():
    def flops(rate):
        model = vision(patch_dropout=rate, class_token=False, pool="avg")
        params = jax.eval_shape(model.init, KEY, IMAGES)

        def total(params):
            return jnp.sum(model.apply(params, IMAGES, deterministic=False, rngs={"dropout": KEY})[0])

        return jax.jit(jax.grad(total)).lower(params).cost_analysis()["flops"]

    # The layers cost a quarter; embedding the patches costs the same.
    assert 0.2 < flops(0.75) / flops(0.0) < 0.45


def test_patch_dropout_reaches_the_training_of_clip():
    model = build_dual_encoder("nano/8", text=SMALL["text"], image=SMALL["image"] | {"patch_dropout": 0.5})
    method = clip(model)
    params = jax.jit(method.init)(KEY, BATCH).params
    loss = jax.jit(lambda key: method.loss(params, {}, BATCH, key, 0)[0])
    assert float(loss(KEY)) != float(loss(jax.random.key(1)))
    assert np.isfinite(loss(KEY))


def test_a_patch_dropout_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"patch_dropout is 1.0, expected a share in \[0, 1\)"):
        vision(patch_dropout=1.0).init(KEY, IMAGES)

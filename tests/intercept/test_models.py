"""The towers of mmjax under interception."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.intercept import edit, match_report, tap
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer, stack_layers

LAYERS = 3
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
IDS = np.array([[1, 5, 2, 6], [3, 4, 6, 0]])


def dual_encoder(**stack):
    settings = {"width": 8, "num_layers": LAYERS, "num_heads": 2, "output_dim": 4, **stack}
    return DualEncoder(
        image=VisionTransformer(patch_size=4, **settings),
        text=TextTransformer(vocab_size=7, context_length=4, **settings),
    )


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(dual_encoder().init, jax.random.key(0), IMAGES, IDS)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.3).astype(leaf.dtype), shapes)


def test_attention_maps_of_both_towers(params):
    model = dual_encoder()
    output, values = jax.jit(tap(model.apply, ["**/attn/probs", "{image,text}"]))(params, IMAGES, IDS)
    maps = {address: value for address, value in values.items() if address.endswith("probs")}
    assert sorted(maps) == sorted(
        f"{tower}/encoder/block_{i}/attn/probs" for tower in ("image", "text") for i in range(LAYERS)
    )
    for address, probs in maps.items():
        assert probs.shape == ((2, 2, 5, 5) if address.startswith("image") else (2, 2, 4, 4))
        np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(values["image"][0], output[0].image_embeds)
    np.testing.assert_array_equal(values["text"][0], output[0].text_embeds)


def test_an_edited_attention_map_reaches_the_heads(params):
    def uniform(probs, call):
        return jnp.full_like(probs, 1 / probs.shape[-1])

    f = tap(edit(dual_encoder().apply, {"image/**/block_1/attn/probs": uniform}), "image/**/block_1/attn/{value,heads}")
    _, values = jax.jit(f)(params, IMAGES)
    attn = "image/encoder/block_1/attn"
    value = values[f"{attn}/value"].reshape(2, 5, 2, 4).swapaxes(1, 2)
    expected = np.broadcast_to(value.mean(2, keepdims=True), value.shape)
    np.testing.assert_allclose(values[f"{attn}/heads"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_scanned_towers_give_the_unrolled_values_stacked(params, remat):
    names = ("attn/probs", "mlp/fc1", "ln_1")
    patterns = [f"**/encoder/*/{name}" for name in names]
    scanned = dual_encoder(scan=True, remat=remat)
    stacked = {"params": stack_layers(params["params"])}
    _, unrolled = jax.jit(tap(dual_encoder().apply, patterns))(params, IMAGES, IDS)
    _, values = jax.jit(tap(scanned.apply, patterns))(stacked, IMAGES, IDS)
    assert len(values) == 2 * len(names)
    for tower in ("image", "text"):
        for name in names:
            layers = [unrolled[f"{tower}/encoder/block_{i}/{name}"] for i in range(LAYERS)]
            np.testing.assert_allclose(values[f"{tower}/encoder/blocks/{name}"], layers, rtol=1e-4, atol=1e-5)


def test_one_scanned_layer_is_edited_as_the_unrolled_one(params):
    scanned = edit(
        dual_encoder(scan=True).apply,
        {"text/encoder/blocks/mlp": lambda value, call: jnp.where(call.layer == 1, 0.0, value)},
    )
    unrolled = edit(dual_encoder().apply, {"text/encoder/block_1/mlp": lambda value, call: jnp.zeros_like(value)})
    stacked = {"params": stack_layers(params["params"])}
    expected = jax.jit(unrolled)(params, None, IDS)[0].text_embeds
    np.testing.assert_allclose(jax.jit(scanned)(stacked, None, IDS)[0].text_embeds, expected, rtol=1e-4, atol=1e-5)


def test_patterns_cover_every_block(params):
    patterns = [f"{tower}/encoder/*/{part}" for tower in ("image", "text") for part in ("attn", "mlp", "ln_1", "ln_2")]
    report = match_report(dual_encoder().apply, patterns, params, IMAGES, IDS)
    assert set(report.counts.values()) == {LAYERS}

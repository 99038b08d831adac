import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import DualEncoder, MlpProjector, TextTransformer, VisionTransformer, without_heads
from tests.models.random_params import random_params

KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (2, 8, 8, 3))
IDS = jnp.array([[1, 9, 0], [1, 2, 9]])
IMAGE = VisionTransformer(patch_size=4, width=8, num_layers=1, num_heads=2, output_dim=6, dropout_rate=0.5)
TEXT = TextTransformer(
    vocab_size=10, context_length=4, width=4, num_layers=1, num_heads=1, output_dim=6, dropout_rate=0.5
)


@pytest.fixture(scope="module")
def variables():
    return {"params": random_params(DualEncoder(IMAGE, TEXT), IMAGES, IDS)}


def test_towers_stand_under_their_names(variables):
    params = variables["params"]
    assert set(params) == {"image", "text", "log_scale"}
    assert params["log_scale"].shape == ()


def test_each_tower_runs_as_if_alone(variables):
    model, params = DualEncoder(IMAGE, TEXT), variables["params"]
    mask = jnp.array([[True, True, False], [True, True, True]])
    output, intermediates = jax.jit(model.apply)(variables, IMAGES, IDS, text_mask=mask)
    image, image_intermediates = jax.jit(IMAGE.apply)({"params": params["image"]}, IMAGES)
    text, text_intermediates = jax.jit(TEXT.apply)({"params": params["text"]}, IDS, mask)
    np.testing.assert_array_equal(output.image_embeds, image)
    np.testing.assert_array_equal(output.text_embeds, text)
    np.testing.assert_array_equal(intermediates["image"].pop("embeds"), image)
    np.testing.assert_array_equal(intermediates["text"].pop("embeds"), text)
    jax.tree.map(
        np.testing.assert_array_equal, intermediates, {"image": image_intermediates, "text": text_intermediates}
    )


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_modality_needs_one_tower(variables, tower):
    params = {name: value for name, value in variables["params"].items() if name in (tower, "log_scale")}
    inputs = {"images": IMAGES} if tower == "image" else {"token_ids": IDS}
    output, intermediates = jax.eval_shape(DualEncoder(IMAGE, TEXT).apply, {"params": params}, **inputs)
    assert set(intermediates) == {tower}
    assert (output.image_embeds is None) == (tower == "text")
    assert (output.text_embeds is None) == (tower == "image")


@pytest.mark.parametrize(
    ("settings", "scale", "bias"),
    [
        ({}, 1 / 0.07, None),
        ({"init_scale": 10.0, "use_bias": True}, 10, -10),
        ({"use_bias": True, "init_bias": -3.0}, 1 / 0.07, -3),
    ],
)
def test_scale_and_bias_start_as_set(settings, scale, bias):
    model = DualEncoder(IMAGE, TEXT, **settings)

    @jax.jit  # asked for the scalars alone, it compiles nothing else
    def scalars():
        output, _ = model.init_with_output(KEY, IMAGES, IDS)[0]
        return output.log_scale, output.bias

    got_log_scale, got_bias = scalars()
    np.testing.assert_allclose(got_log_scale, math.log(scale), rtol=1e-6)
    assert (got_bias is None) if bias is None else (float(got_bias) == bias)


def test_dropout_is_on_when_not_deterministic(variables):
    model = DualEncoder(IMAGE, TEXT)
    apply = jax.jit(model.apply, static_argnames="deterministic")
    off, _ = apply(variables, IMAGES, IDS)
    on, _ = apply(variables, IMAGES, IDS, deterministic=False, rngs={"dropout": KEY})
    assert bool(jnp.any(on.image_embeds != off.image_embeds))
    assert bool(jnp.any(on.text_embeds != off.text_embeds))


HEADS = DualEncoder(IMAGE, TEXT, image_head=MlpProjector(5, depth=1), text_head=MlpProjector(5))


@pytest.fixture(scope="module")
def with_heads():
    return {"params": random_params(HEADS, IMAGES, IDS)}


def test_heads_stand_on_what_the_towers_give(with_heads):
    params = with_heads["params"]
    assert set(params) == {"image", "text", "image_head", "text_head", "log_scale"}
    output, intermediates = jax.jit(HEADS.apply)(with_heads, IMAGES, IDS)
    bare, _ = jax.jit(without_heads(HEADS).apply)(with_heads, IMAGES, IDS)
    np.testing.assert_array_equal(intermediates["image"]["embeds"], bare.image_embeds)
    np.testing.assert_array_equal(intermediates["text"]["embeds"], bare.text_embeds)
    head = params["image_head"]["dense_0"]
    np.testing.assert_allclose(output.image_embeds, bare.image_embeds @ head["kernel"] + head["bias"], rtol=1e-4)
    assert output.text_embeds.shape == (2, 5)


def test_features_stand_in_for_a_tower(with_heads):
    params = {name: with_heads["params"][name] for name in ("image_head", "text_head", "log_scale")}
    expected, intermediates = jax.jit(HEADS.apply)(with_heads, IMAGES, IDS)
    features = {f"{name}_features": found["embeds"] for name, found in intermediates.items()}
    output, none = jax.jit(HEADS.apply)({"params": params}, **features)
    np.testing.assert_allclose(output.image_embeds, expected.image_embeds, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.text_embeds, expected.text_embeds, rtol=1e-5, atol=1e-6)
    assert none == {}


def test_one_tower_alone_has_its_parameters_and_no_scale():
    alone = DualEncoder(text=TEXT, text_head=MlpProjector(5))
    shapes = jax.eval_shape(alone.init, KEY, token_ids=IDS)["params"]
    assert set(shapes) == {"text", "text_head"}
    output, intermediates = jax.eval_shape(alone.apply, {"params": shapes}, token_ids=IDS)
    assert (output.image_embeds, output.log_scale, output.bias) == (None, None, None)
    assert output.text_embeds.shape == (2, 5)
    assert set(intermediates) == {"text"}


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (DualEncoder(IMAGE, TEXT), {}, "neither images nor token_ids are given"),
        (DualEncoder(text=TEXT), {"images": IMAGES}, "input for the image tower, but the model has none"),
        (DualEncoder(IMAGE), {"text_features": jnp.ones((2, 6))}, "input for the text tower, but the model has none"),
        (DualEncoder(IMAGE), {"images": IMAGES, "image_features": jnp.ones((2, 6))}, "give one of the two"),
    ],
)
def test_input_without_a_tower_is_an_error(model, inputs, message):
    with pytest.raises(ValueError, match=f"DualEncoder: .*{message}"):
        jax.eval_shape(model.init, KEY, **inputs)

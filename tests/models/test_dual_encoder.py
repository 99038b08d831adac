import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import DualEncoder, TextTransformer, VisionTransformer
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


def test_nothing_to_embed_is_an_error(variables):
    with pytest.raises(ValueError, match="neither images nor token_ids are given"):
        DualEncoder(IMAGE, TEXT).apply(variables)

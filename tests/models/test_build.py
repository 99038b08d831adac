import json

import jax.numpy as jnp
import pytest
from flax import linen as nn

from mmjax.models import PRESETS, DualEncoder, VisionTransformer, build_dual_encoder, describe_model

BERT = {
    "vocab_size": 50,
    "context_length": 8,
    "width": 12,
    "num_layers": 2,
    "num_heads": 3,
    "output_dim": None,
    "norm_position": "post",
    "type_vocab": 2,
    "causal": False,
    "pool": "mean",
    "ln_eps": 1e-12,
}
VIT = {"patch_size": 4, "width": 8, "num_layers": 1, "num_heads": 2, "output_dim": 12, "image_size": (8, 16)}


@pytest.mark.parametrize(
    "settings",
    [
        *({"preset": preset} for preset in PRESETS),
        {"preset": "nano/8", "dtype": "bfloat16", "scan": True, "text": {"param_dtype": "bfloat16", "remat": "dots"}},
        {"preset": "SigLIP-B/16", "image_head": {"features": 4, "depth": 3}, "text_head": {"features": 4}},
        {"text": BERT},
        {"image": VIT, "use_bias": True},
        {"image": VIT, "text": BERT, "init_scale": 5.0},
        {"image": VIT, "image_head": {"features": 3}},
    ],
    ids=str,
)
def test_a_description_makes_the_model_again(settings):
    model = build_dual_encoder(**settings)
    description = json.loads(json.dumps(describe_model(model)))
    assert build_dual_encoder(**description) == model
    assert describe_model(build_dual_encoder(**description)) == describe_model(model)


def test_a_description_is_complete_and_plain():
    description = describe_model(build_dual_encoder(image=VIT, dtype="bfloat16", image_head={"features": 3}))
    assert set(description) == {"image", "image_head", "init_scale", "use_bias", "init_bias"}
    assert description["image"]["image_size"] == [8, 16]
    assert (description["image"]["dtype"], description["image"]["param_dtype"]) == ("bfloat16", "float32")
    assert description["image"]["ln_eps"] == 1e-5
    assert description["image_head"] == {"features": 3, "depth": 2, "dtype": "bfloat16", "param_dtype": "float32"}


def test_a_tower_that_is_not_given_is_absent():
    model = build_dual_encoder(text=BERT)
    assert (model.image, model.text.pool, model.text.width) == (None, "mean", 12)
    with pytest.raises(ValueError, match="neither a preset nor a tower is given"):
        build_dual_encoder()


def test_switches_reach_the_fields_that_a_part_has():
    model = build_dual_encoder(
        "nano/8", image_head={"features": 4}, text_head={"features": 4, "dtype": None}, dtype="bfloat16", remat="full"
    )
    assert (model.image_head.dtype, model.text_head.dtype) == (jnp.bfloat16, None)
    assert model.text.remat == "full"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": {"width": 4}}, "text lacks vocab_size, context_length, num_layers, num_heads, output_dim; set them"),
        ({"text": BERT, "image_head": {"features": 3}}, "image_head is set, but there is no image tower under it"),
        ({"preset": "nano/8", "text_head": {"feature": 3}}, "text_head has no setting 'feature'; did you mean 'feat"),
        ({"preset": "nano/8", "text_head": {"features": 3}}, "image embeddings have width 64, text embeddings 3"),
        ({"image": VIT, "text": BERT | {"width": 9}}, "image embeddings have width 12, text embeddings 9"),
        ({"preset": "nano/8", "text_head": {"depth": 1}}, "text_head lacks features"),
    ],
)
def test_mistakes_name_the_fix(settings, message):
    with pytest.raises(ValueError, match=f"build_dual_encoder: {message}"):
        build_dual_encoder(**settings)


def test_a_part_of_another_class_has_no_description():
    model = DualEncoder(VisionTransformer(4, 8, 1, 2, 12), nn.Dense(3))
    with pytest.raises(ValueError, match="describe_model: text is a Dense, expected a TextTransformer"):
        describe_model(model)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import PRESETS, build_dual_encoder

KEY = jax.random.key(0)


def example(model):
    size = model.image.image_size
    return jnp.zeros((1, size, size, 3)), jnp.zeros((1, model.text.context_length), jnp.int32)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        # Counts of the released models, logit scale (and bias) included.
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14@336", 427_944_193),
        ("SigLIP-B/16", 203_155_970),
        # image: 8*8*3*64 patches, 64 class, 17*64 positions, 2*128 norms, 2 blocks of 12*64^2 + 13*64, 64^2 projection;
        # text: 1024*64 + 32*64 embeddings, 128 norm, the same blocks and projection; 1 scale.
        ("nano/8", 12288 + 64 + 1088 + 256 + 2 * 49984 + 4096 + 65536 + 2048 + 128 + 2 * 49984 + 4096 + 1),
    ],
)
def test_parameter_counts(preset, parameters):
    model = build_dual_encoder(preset, image={"scan": True}, text={"scan": True})
    variables = jax.eval_shape(model.init, KEY, *example(model))
    assert sum(x.size for x in jax.tree.leaves(variables)) == parameters


@pytest.mark.parametrize("preset", PRESETS)
def test_towers_meet_in_one_space(preset):
    model = build_dual_encoder(preset, image={"scan": True}, text={"scan": True})
    (output, _), _ = jax.eval_shape(model.init_with_output, KEY, *example(model))
    assert output.image_embeds.shape == output.text_embeds.shape
    assert (output.bias is not None) == preset.startswith("SigLIP")


def test_overrides_reach_their_tower():
    model = build_dual_encoder(
        "nano/8", image={"image_size": 64, "act": "quick_gelu"}, text={"vocab_size": 300}, init_scale=5.0, use_bias=True
    )
    assert (model.image.image_size, model.image.act, model.text.act) == (64, "quick_gelu", "gelu")
    assert (model.text.vocab_size, model.init_scale, model.use_bias, model.init_bias) == (300, 5.0, True, -10.0)
    assert PRESETS["nano/8"].image["image_size"] == 32


def test_siglip_starts_at_its_published_scale():
    model = build_dual_encoder("SigLIP-B/16")
    np.testing.assert_allclose((model.init_scale, model.init_bias), (10.0, -10.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_dual_encoder("ViT-B32"), r"no preset 'ViT-B32'; did you mean 'ViT-B/32'"),
        (
            lambda: build_dual_encoder("nano/8", image={"patchsize": 4}),
            "image has no setting 'patchsize'; did you mean 'patch_size'",
        ),
        (
            lambda: build_dual_encoder("nano/8", text={"vocab": 4}),
            "text has no setting 'vocab'; did you mean 'vocab_size'",
        ),
        (
            lambda: build_dual_encoder("nano/8", text={"output_dim": 32}),
            "image embeddings have width 64, text embeddings 32",
        ),
    ],
)
def test_mistakes_name_the_fix(call, message):
    with pytest.raises(ValueError, match=f"build_dual_encoder: {message}"):
        call()

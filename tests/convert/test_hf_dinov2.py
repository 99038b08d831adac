import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import Bundle, ConversionError, detect_format, export_model, import_model, resize_pictures
from mmjax.convert.formats.hf_dinov2 import FORMAT
from mmjax.data import ImageSpec
from mmjax.models import DualEncoder, MlpProjector, TextTransformer, VisionTransformer, stack_layers
from tests.convert.vision_backbones import edit, tiny_backbone
from tests.trees import assert_equal_trees

DINOV2 = {"layer_scale": 1e-5, "position_resize": "bicubic"}
REGISTERS = {"layer_scale": 1e-5, "num_registers": 3}


def export(run, out, **changes):
    return export_model(run._replace(**changes), out, format="hf_dinov2")


@pytest.mark.parametrize(
    "settings",
    [
        DINOV2 | {"image_size": 20, "spec": ImageSpec(12, scaled_size=14)},
        DINOV2 | {"act": "swiglu", "mlp_ratio": 3.0, "ln_eps": 1e-5},
        DINOV2 | {"act": "gelu_tanh", "mlp_ratio": 2.0, "spec": ImageSpec(16, fit="squash", resize="bilinear")},
        REGISTERS | {"width": 12, "num_heads": 3, "patch_size": 7, "image_size": 21, "num_layers": 2},
    ],
    ids=["table of another size", "swiglu", "gelu_tanh, squashed pictures", "registers"],
)
def test_round_trip_is_bit_equal(tmp_path, settings):
    run = tiny_backbone(**settings)
    export(run, tmp_path / "out")
    assert detect_format(tmp_path / "out") == "hf_dinov2"
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, run.params)
    assert (back.model, back.image, back.tokenizer, back.context_length) == (run.model, run.image, None, None)


def test_scanned_image_tower_of_a_dual_encoder(tmp_path):
    run = tiny_backbone(**REGISTERS)
    text = TextTransformer(vocab_size=9, context_length=3, width=8, num_layers=1, num_heads=1, output_dim=16)
    model = run.model.clone(image=run.model.image.clone(scan=True), text=text)
    params = {"image": stack_layers(run.params)["image"], "text": {}, "log_scale": jnp.ones(())}
    export(run, tmp_path / "out", model=model, params=params)
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


@pytest.mark.parametrize("size", [16, (16, 16), None])
def test_the_size_of_the_table_may_be_left_open(tmp_path, size):
    export(tiny_backbone(**DINOV2, image_size=size, spec=ImageSpec(16)), tmp_path / "out")
    assert import_model(tmp_path / "out").model.image.image_size == 16


def test_config_of_the_published_sizes(tmp_path):
    def config(**settings):
        tower = VisionTransformer(14, output_dim=None, image_size=518, pre_norm=False, ln_eps=1e-6, **settings)
        folder = tmp_path / str(settings["width"])
        folder.mkdir()
        FORMAT.write(folder, Bundle(DualEncoder(image=tower), {}, image=ImageSpec(224, scaled_size=256)), {})
        return [json.loads((folder / f"{name}.json").read_text()) for name in ("config", "preprocessor_config")]

    # As in the configs of facebook/dinov2-base, and of facebook/dinov2-with-registers-giant.
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "mlp_ratio": 4}
    sizes |= {"image_size": 518, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    base, preprocessing = config(width=768, num_layers=12, num_heads=12, layer_scale=1.0)
    assert base.items() >= (sizes | {"model_type": "dinov2", "use_swiglu_ffn": False}).items()
    assert preprocessing["image_processor_type"] == "BitImageProcessor"
    assert preprocessing["size"] == {"shortest_edge": 256}
    assert preprocessing["crop_size"] == {"height": 224, "width": 224}
    giant, _ = config(
        width=1536, num_layers=40, num_heads=24, mlp_ratio=4096 / 1536, act="swiglu", num_registers=4, layer_scale=1.0
    )
    sizes |= {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}
    assert giant.items() >= (sizes | {"model_type": "dinov2_with_registers", "num_register_tokens": 4}).items()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "avg"}, "image.pool is 'avg', HF DINOv2 has 'tok'"),
        ({"output_dim": 8}, "image.output_dim is 8, HF DINOv2 has None"),
        ({"pre_norm": True}, "image.pre_norm is True, HF DINOv2 has False"),
        ({"patch_bias": False}, "image.patch_bias is False, HF DINOv2 has True"),
        ({"position": "sincos"}, "image.position is 'sincos', HF DINOv2 has 'learned'"),
        ({"layer_scale": None}, "image.layer_scale is None, but HF DINOv2 always scales"),
        ({"mlp_ratio": 3.25}, "image.mlp_ratio is 3.25, expected a whole number"),
        ({"act": "swiglu", "mlp_ratio": 2.75}, "image.mlp_ratio is 2.75, expected two thirds of a whole number"),
        (
            {"spec": ImageSpec(12), "position_resize": "bicubic_antialias"},
            "pictures are prepared at 12 pixels, to which HF DINOv2 resizes by 'bicubic', not 'bicubic_antialias'",
        ),
        (
            {"spec": ImageSpec(12), "num_registers": 1},
            "pictures are prepared at 12 pixels, to which HF DINOv2 resizes by 'bicubic_antialias', not 'bicubic'",
        ),
        (
            {"image_size": (16, 12), "spec": ImageSpec(16)},
            "image.image_size is (16, 12), but the pictures are prepared",
        ),
    ],
)
def test_what_hf_dinov2_cannot_express(tmp_path, settings, message):
    with pytest.raises(ConversionError) as error:
        export(tiny_backbone(**DINOV2 | settings), tmp_path / "out")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_all_obstacles_are_listed_at_once(tmp_path):
    run = tiny_backbone(pool="map", act="swiglu", mlp_ratio=2.75)
    with pytest.raises(ConversionError, match="HF DINOv2 cannot express this model") as error:
        export(run, tmp_path / "out", model=run.model.clone(image_head=MlpProjector(4)), image=None)
    subjects = [problem.split(",")[0].split(" is ")[0] for problem in error.value.problems]
    head, pictures = "HF DINOv2 has no place for image_head", "no preprocessing of pictures"
    assert subjects == [head, "image.pool", "image.layer_scale", "image.mlp_ratio", pictures]


def test_pictures_of_another_size_for_good(tmp_path):
    run = tiny_backbone(**DINOV2, image_size=20, spec=ImageSpec(12, scaled_size=15))
    smaller = resize_pictures(run, 8)
    assert smaller.image == ImageSpec(8, scaled_size=10)
    pixels = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
    (ours, _), (wanted, _) = (jax.jit(x.model.apply)({"params": x.params}, pixels) for x in (smaller, run))
    np.testing.assert_allclose(ours.image_embeds, wanted.image_embeds, atol=1e-5)
    export(smaller, tmp_path / "out")
    assert import_model(tmp_path / "out").model == smaller.model


def test_import_of_a_backbone_below_a_classifier_and_of_layers_without_biases(tmp_path):
    run = tiny_backbone(**DINOV2)
    export(run, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    for name in [name for name in tensors if name.endswith(("query.bias", "key.bias", "value.bias"))]:
        del tensors[name]
    assert len(tensors) == len(load_file(weights)) - 3
    tensors = {f"dinov2.{name}": tensor for name, tensor in tensors.items()}
    tensors |= {"dinov2.embeddings.mask_token": np.ones((1, 16), np.float32)}
    save_file(tensors | {"classifier.weight": np.ones((2, 32), np.float32)}, weights)
    edit(tmp_path / "out" / "config.json", qkv_bias=False)
    back = import_model(tmp_path / "out")
    attention = back.params["image"]["encoder"]["block_0"]["attn"]
    np.testing.assert_array_equal(attention["key"]["bias"], np.zeros(16))
    wanted = run.params["image"]["encoder"]["block_0"]["attn"]
    np.testing.assert_array_equal(attention["key"]["kernel"], wanted["key"]["kernel"])
    np.testing.assert_array_equal(attention["out"]["bias"], wanted["out"]["bias"])


@pytest.mark.parametrize("settings", [DINOV2 | {"patch_size": 14}, REGISTERS | {"patch_size": 16, "num_registers": 4}])
def test_import_fills_in_the_defaults_that_folders_leave_out(tmp_path, settings):
    run = tiny_backbone(**settings | {"width": 24, "num_heads": 12, "num_layers": 12, "image_size": 224})
    export(run, tmp_path / "out")
    left_out = ["num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act", "layer_norm_eps", "image_size"]
    left_out += ["patch_size", "num_channels", "qkv_bias", "use_swiglu_ffn", "num_register_tokens", "layerscale_value"]
    edit(tmp_path / "out" / "config.json", **dict.fromkeys(left_out))
    assert import_model(tmp_path / "out").model.image == run.model.image.clone(layer_scale=1.0)


def test_import_lists_settings_without_counterpart(tmp_path):
    export(tiny_backbone(**DINOV2), tmp_path / "out")
    edit(tmp_path / "out" / "config.json", hidden_act="relu", image_size=[16, 12])
    edit(tmp_path / "out" / "preprocessor_config.json", do_normalize=False)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    subjects = [problem.split(" is ")[0] for problem in error.value.problems]
    assert subjects == ["config.json.hidden_act", "config.json.image_size", "do_normalize"]
    edit(tmp_path / "out" / "config.json", model_type="vit")
    with pytest.raises(ConversionError, match="model_type is 'vit', expected 'dinov2' or 'dinov2_with_registers'"):
        import_model(tmp_path / "out", format="hf_dinov2")

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import Bundle, ConversionError, detect_format, export_model, import_model
from mmjax.convert.formats.hf_vit import FORMAT
from mmjax.data import ImageSpec
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer, stack_layers
from tests.convert.vision_backbones import edit, tiny_backbone
from tests.trees import assert_equal_trees

VIT = {"position_resize": "bicubic"}


def export(run, out, **changes):
    return export_model(run._replace(**changes), out, format="hf_vit")


@pytest.mark.parametrize(
    "settings",
    [
        VIT | {"ln_eps": 1e-12, "num_layers": 2, "spec": ImageSpec(16, fit="squash", resize="bilinear")},
        VIT | {"pool": "pooler", "act": "gelu_tanh", "mlp_ratio": 3.25, "patch_size": 7, "image_size": 21},
        VIT | {"output_dim": 6, "proj_bias": True, "width": 12, "num_heads": 3, "spec": ImageSpec(16, scaled_size=18)},
    ],
    ids=["class token", "pooler", "projection"],
)
def test_round_trip_is_bit_equal(tmp_path, settings):
    run = tiny_backbone(**settings)
    export(run, tmp_path / "out")
    assert detect_format(tmp_path / "out") == "hf_vit"
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, run.params)
    assert (back.model, back.image, back.tokenizer, back.context_length) == (run.model, run.image, None, None)


def test_projection_without_bias_gets_one_that_adds_nothing(tmp_path):
    run = tiny_backbone(**VIT, output_dim=6)
    export(run, tmp_path / "out")
    back = import_model(tmp_path / "out")
    assert back.model.image == run.model.image.clone(proj_bias=True)
    projection = {"kernel": run.params["image"]["proj"]["kernel"], "bias": np.zeros(6)}
    assert_equal_trees(back.params, {"image": {**run.params["image"], "proj": projection}})


def test_scanned_image_tower_of_a_dual_encoder(tmp_path):
    run = tiny_backbone(**VIT, pool="pooler")
    text = TextTransformer(vocab_size=9, context_length=3, width=8, num_layers=1, num_heads=1, output_dim=16)
    model = run.model.clone(image=run.model.image.clone(scan=True), text=text)
    params = {"image": stack_layers(run.params)["image"], "text": {}, "log_scale": jnp.ones(())}
    export(run, tmp_path / "out", model=model, params=params)
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


def test_config_of_a_published_size(tmp_path):
    tower = VisionTransformer(16, 1024, 24, 16, None, image_size=384, pre_norm=False, ln_eps=1e-12)
    spec = ImageSpec(384, (0.5,) * 3, (0.5,) * 3, resize="bilinear", fit="squash")
    FORMAT.write(tmp_path, Bundle(DualEncoder(image=tower), {}, image=spec), {})
    config, preprocessing = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "preprocessor_config")
    )
    # As in the configs of google/vit-large-patch16-384.
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    sizes |= {"image_size": 384, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    assert config.items() >= (sizes | {"model_type": "vit"}).items()
    assert preprocessing["image_processor_type"] == "ViTImageProcessor"
    assert preprocessing["size"] == {"height": 384, "width": 384}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "avg"}, "image.pool is 'avg', but HF ViT reads the class token ('tok' or 'pooler')"),
        ({"pool": "pooler", "output_dim": 6}, "image.output_dim is 6, but HF ViT has nothing behind the pooler"),
        ({"class_token": False, "pool": "map"}, "image.class_token is False, HF ViT has True"),
        ({"num_registers": 4}, "image.num_registers is 4, HF ViT has 0"),
        ({"pre_norm": True}, "image.pre_norm is True, HF ViT has False"),
        ({"patch_bias": False}, "image.patch_bias is False, HF ViT has True"),
        ({"position": "sincos"}, "image.position is 'sincos', HF ViT has 'learned'"),
        ({"layer_scale": 1.0}, "image.layer_scale is 1.0, HF ViT has None"),
        ({"act": "swiglu"}, "image.act is 'swiglu', expected one of 'gelu'"),
        ({"spec": ImageSpec(12)}, "image.image_size is 16, but the pictures are prepared at 12 pixels"),
    ],
)
def test_what_hf_vit_cannot_express(tmp_path, settings, message):
    with pytest.raises(ConversionError) as error:
        export(tiny_backbone(**VIT | settings), tmp_path / "out")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_all_obstacles_are_listed_at_once(tmp_path):
    with pytest.raises(ConversionError, match="HF ViT cannot express this model") as error:
        export(tiny_backbone(pool="avg", layer_scale=0.1, act="swiglu"), tmp_path / "out", image=None)
    subjects = [problem.split(",")[0].split(" is ")[0] for problem in error.value.problems]
    assert subjects == ["image.layer_scale", "image.act", "image.pool", "no preprocessing of pictures"]


def test_import_of_a_backbone_below_a_classifier_and_of_layers_without_biases(tmp_path):
    run = tiny_backbone(**VIT)
    export(run, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = {f"vit.{name}": tensor for name, tensor in load_file(weights).items()}
    for part in ("query", "key", "value"):
        del tensors[f"vit.encoder.layer.0.attention.attention.{part}.bias"]
    save_file(tensors | {"classifier.bias": np.ones(2, np.float32)}, weights)
    edit(tmp_path / "out" / "config.json", qkv_bias=False)
    back = import_model(tmp_path / "out")
    zeros = {"bias": np.zeros(16)}
    block = dict(run.params["image"]["encoder"]["block_0"])
    block["attn"] = block["attn"] | {name: block["attn"][name] | zeros for name in ("query", "key", "value")}
    assert_equal_trees(back.params, {"image": {**run.params["image"], "encoder": {"block_0": block}}})


def test_import_fills_in_the_defaults_that_folders_leave_out(tmp_path):
    run = tiny_backbone(
        **VIT, pool="pooler", patch_size=16, image_size=224, width=24, num_layers=12, num_heads=12, ln_eps=1e-12
    )
    export(run, tmp_path / "out")
    left_out = ["num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "image_size", "patch_size"]
    left_out += ["num_channels", "qkv_bias", "pooler_output_size", "pooler_act"]
    edit(tmp_path / "out" / "config.json", **dict.fromkeys(left_out))
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


def test_import_lists_settings_without_counterpart(tmp_path):
    export(tiny_backbone(**VIT, pool="pooler"), tmp_path / "out")
    edit(tmp_path / "out" / "config.json", num_channels=1, pooler_act="relu")
    edit(tmp_path / "out" / "preprocessor_config.json", do_rescale=False)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    subjects = [problem.split(" is ")[0] for problem in error.value.problems]
    assert subjects == ["config.json.num_channels", "config.json.pooler_act", "do_rescale"]
    edit(tmp_path / "out" / "config.json", num_channels=3, pooler_act="tanh", pooler_output_size=8)
    with pytest.raises(ConversionError, match="pooler_output_size is 8, expected hidden_size, 16"):
        import_model(tmp_path / "out")
    edit(tmp_path / "out" / "config.json", model_type="deit")
    with pytest.raises(ConversionError, match="model_type is 'deit', expected 'vit'"):
        import_model(tmp_path / "out", format="hf_vit")

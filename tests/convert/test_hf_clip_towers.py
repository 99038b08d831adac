"""Folders of one tower of CLIP, without PyTorch."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, detect_format, export_model, import_model, select_towers
from mmjax.data import Tokenizer
from mmjax.models import MlpProjector
from tests.convert.folders import edit
from tests.trees import assert_equal_trees

TOWERS = [("hf_clip_vision", "image", "CLIPVisionModel"), ("hf_clip_text", "text", "CLIPTextModel")]


@pytest.mark.parametrize(("name", "tower", "kind"), TOWERS)
@pytest.mark.parametrize("output_dim", [12, None])
def test_round_trip_is_bit_equal(tiny, tmp_path, name, tower, kind, output_dim):
    settings = {"num_layers": 1, "mlp_ratio": 3.25, "act": "quick_gelu", "ln_eps": 1e-6, "output_dim": output_dim}
    bundle = tiny(towers=(tower,), image={"patch_size": 7, "image_size": 21}, **settings)
    export_model(bundle, tmp_path / "out", format=name)
    assert detect_format(tmp_path / "out") == name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [f"{kind}WithProjection" if output_dim else kind]
    assert config.get("projection_dim") == output_dim
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, bundle.params)
    wanted = bundle.model
    if tower == "text":  # The end token has the largest id, so reading at either is the same.
        wanted = wanted.clone(text=wanted.text.clone(pool="eos", eos_id=bundle.tokenizer.eos_id))
    assert back.model == wanted
    assert (back.image, back.context_length) == (bundle.image, bundle.context_length)


@pytest.mark.parametrize(("name", "tower", "kind"), TOWERS)
def test_a_dual_encoder_gives_its_tower(tiny, tmp_path, name, tower, kind):
    both = tiny(num_layers=1)
    export_model(both, tmp_path / "both", format="hf_clip")
    export_model(both, tmp_path / "one", format=name)
    prefixes = {"image": ("vision_model.", "visual_projection."), "text": ("text_model.", "text_projection.")}[tower]
    tensors = load_file(tmp_path / "both" / "model.safetensors")
    wanted = {key: tensor for key, tensor in tensors.items() if key.startswith(prefixes)}
    assert_equal_trees(load_file(tmp_path / "one" / "model.safetensors"), wanted)
    assert_equal_trees(import_model(tmp_path / "one").params, select_towers(both, (tower,)).params)
    files = {path.name for path in (tmp_path / "one").iterdir()} - {"config.json", "model.safetensors"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    assert files == ({"preprocessor_config.json"} if tower == "image" else tokenizer)


@pytest.mark.parametrize(("name", "tower", "kind"), TOWERS)
def test_names_without_the_tower_before_them(tiny, tmp_path, name, tower, kind):
    # As transformers 5 saves the classes without projection; older folders have positions beside the tensors.
    bundle = tiny(towers=(tower,), num_layers=1, output_dim=None)
    export_model(bundle, tmp_path / "out", format=name)
    weights = tmp_path / "out" / "model.safetensors"
    bare = {key.split(".", 1)[1]: tensor for key, tensor in load_file(weights).items()}
    save_file(bare | {"embeddings.position_ids": np.arange(3)}, weights)
    assert_equal_trees(import_model(tmp_path / "out").params, bundle.params)


def test_a_projection_that_is_said_to_be_there_must_be(tiny, tmp_path):
    export_model(tiny(towers=("image",), num_layers=1), tmp_path / "out", format="hf_clip_vision")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    projection = tensors.pop("visual_projection.weight")
    save_file(tensors, weights)
    with pytest.raises(ConversionError, match=r"missing tensor 'visual_projection.weight' \(12, 16\)"):
        import_model(tmp_path / "out")
    # A tensor says so as well as the class.
    save_file(tensors | {"visual_projection.weight": projection}, weights)
    edit(tmp_path / "out" / "config.json", architectures=None)
    assert import_model(tmp_path / "out").model.image.output_dim == 12


def test_a_legacy_text_tower_reads_the_largest_id(tiny, tmp_path):
    bundle = tiny(towers=("text",), num_layers=1)
    export_model(bundle, tmp_path / "out", format="hf_clip_text")
    edit(tmp_path / "out" / "config.json", eos_token_id=2)
    assert import_model(tmp_path / "out").model.text == bundle.model.text


@pytest.mark.parametrize(
    ("name", "settings", "messages"),
    [
        (
            "hf_clip_vision",
            {"image": {"pool": "avg", "layer_scale": 0.1}},
            ["image.pool is 'avg', HF CLIP has 'tok'", "image.layer_scale is 0.1, HF CLIP has None"],
        ),
        (
            "hf_clip_text",
            {"text": {"causal": False, "pool": "mean"}},
            ["text.causal is False, HF CLIP has True", "text.pool is 'mean', but HF CLIP reads the end token"],
        ),
    ],
)
def test_what_a_tower_cannot_express_is_listed(tiny, tmp_path, name, settings, messages):
    bundle = tiny(**settings)
    model = bundle.model.clone(image_head=MlpProjector(4), text_head=MlpProjector(4))
    with pytest.raises(ConversionError, match=r"HF CLIP .* cannot express this model") as error:
        export_model(bundle._replace(model=model), tmp_path / "out", format=name)
    head = "image_head" if name == "hf_clip_vision" else "text_head"
    found = [problem.split(" ('argmax'")[0] for problem in error.value.problems]
    assert sorted(found) == sorted([*messages, f"HF CLIP has no place for {head}"])
    assert list(tmp_path.iterdir()) == []


def test_the_end_token_must_be_the_one_that_is_read(tiny, tmp_path, tokenizer):
    other = Tokenizer(tokenizer.backend, bos_id=tokenizer.bos_id, eos_id=5, pad_id=tokenizer.pad_id)
    with pytest.raises(ConversionError, match="but the end token 5 is not the largest id"):
        export_model(tiny()._replace(tokenizer=other), tmp_path / "out", format="hf_clip_text")


def test_import_lists_what_is_wrong_in_all_files(tiny, tmp_path):
    export_model(tiny(num_layers=1), tmp_path / "out", format="hf_clip_vision")
    edit(tmp_path / "out" / "config.json", hidden_act="relu", num_channels=1)
    edit(tmp_path / "out" / "preprocessor_config.json", do_resize=False)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "config.json.hidden_act",
        "config.json.num_channels",
        "do_resize",
    ]
    edit(tmp_path / "out" / "config.json", model_type="clip")
    with pytest.raises(ConversionError, match="model_type is 'clip', expected 'clip_vision_model'"):
        import_model(tmp_path / "out", format="hf_clip_vision")


def test_import_fills_in_the_defaults_that_folders_leave_out(tiny, tmp_path):
    bundle = tiny(towers=("text",), num_layers=12, num_heads=8, act="quick_gelu", output_dim=512)
    export_model(bundle, tmp_path / "out", format="hf_clip_text")
    keys = ("num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "projection_dim")
    edit(tmp_path / "out" / "config.json", **dict.fromkeys(keys))
    text = bundle.model.text.clone(pool="eos", eos_id=bundle.tokenizer.eos_id)
    assert import_model(tmp_path / "out").model.text == text

"""Folders and state dicts of open_clip against `open_clip` itself."""

import importlib.resources
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.convert import ConversionError, detect_format, export_model, import_model, verify_model
from mmjax.convert.formats import _timm_names
from mmjax.convert.formats._open_clip_config import open_clip_model
from mmjax.convert.formats._open_clip_inferred import inferred_config
from mmjax.convert.formats.open_clip import FORMAT
from mmjax.convert.hf_folder import write_tokenizer
from mmjax.convert.rules import to_params
from mmjax.data import ImageSpec
from tests.convert.folders import edit

torch = pytest.importorskip("torch", reason="parity needs the extra 'open_clip'")
open_clip = pytest.importorskip("open_clip", reason="parity needs the extra 'open_clip'")

VISION = {"layers": 2, "width": 64, "head_width": 64, "patch_size": 4, "image_size": 16}
TEXT = {"layers": 2, "width": 64, "heads": 1, "context_length": 14, "vocab_size": 290, "hf_tokenizer_name": "x"}
SIGLIP_TEXT = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
MEAN = {"pool_type": "avg", "no_ln_pre": True, "ls_init_value": 1e-4, "mlp_ratio": 4.3637, "head_width": 16}
TIMM = {"timm_model_name": "vit_micro_patch4_siglip_16", "timm_pool": "map", "timm_proj": "none", "image_size": 16}
CLEAN = {"tokenizer_kwargs": {"clean": "canonicalize"}}
CASES = {
    "CLIP": ({}, VISION, TEXT),
    "QuickGELU, odd size": ({"quick_gelu": True}, VISION | {"patch_size": 7, "image_size": 21}, TEXT | {"heads": 4}),
    "mean": ({}, VISION | MEAN, TEXT | {"act_kwargs": {"approximate": "tanh"}, "pool_type": "first"}),
    "end token, lower case": ({}, VISION, TEXT | {"pool_type": "eos", "tokenizer_kwargs": {"clean": "lower"}}),
    "no projection of texts": ({"embed_dim": 64}, VISION, TEXT | {"proj_type": "none"}),
    "fixed positions": ({}, VISION | {"pos_embed_type": "sin_cos_2d"}, TEXT),
    "custom text, bias": ({"custom_text": True, "init_logit_bias": -10}, VISION, TEXT | SIGLIP_TEXT | CLEAN),
    "CLIP's own words": ({}, VISION, {**TEXT, "vocab_size": 49408, "hf_tokenizer_name": None}),
    "SigLIP": ({"custom_text": True, "init_logit_bias": -10, "embed_dim": 64}, TIMM, TEXT | SIGLIP_TEXT | CLEAN),
}


@pytest.fixture(autouse=True)
def micro_siglip(monkeypatch):
    """A small SigLIP tower that timm, and we, know by name."""
    timm = pytest.importorskip("timm", reason="open_clip needs it")
    monkeypatch.setitem(_timm_names._SIZES, "micro", (64, 2, 256))
    monkeypatch.setitem(_timm_names._PICTURES, ("micro", 4), (16,))

    def vit_micro_patch4_siglip_16(**settings):
        sizes = {"patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 1, "img_size": 16, "class_token": False}
        for name in ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            settings.pop(name, None)
        return timm.models.VisionTransformer(**sizes | {"global_pool": "map"} | settings)

    monkeypatch.setitem(
        timm.models._registry._model_entrypoints, "vit_micro_patch4_siglip_16", vit_micro_patch4_siglip_16
    )


@pytest.fixture
def save(tmp_path, tokenizer):
    """`save(name)` -> the folder of a network with random weights, as open_clip's users have it."""

    def write(name, **preprocessing):
        model, vision, text = CASES[name]
        model = {"embed_dim": 12, **model, "vision_cfg": dict(vision), "text_cfg": dict(text)}
        if text.get("pool_type") == "eos":
            model["text_cfg"]["eos_id"] = tokenizer.eos_id
        folder = tmp_path / "theirs"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocessing}))
        if text["hf_tokenizer_name"]:
            write_tokenizer(folder, tokenizer, context_length=14)
        torch.manual_seed(0)
        network = open_clip.create_model(f"local-dir:{folder}")
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
        return folder

    return write


@pytest.mark.parametrize("name", CASES)
def test_a_folder_that_open_clip_wrote(save, tmp_path, name):
    squash = {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    folder = save(name, **(squash if name == "SigLIP" else {}))
    assert detect_format(folder) == "open_clip"
    run = import_model(folder)
    report = verify_model(run, folder)
    assert {row.name for row in report.rows} >= {"token ids", "pixels", "text/encoder/block_1", "logits"}
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5
    export_model(run, tmp_path / "ours", format="open_clip", verify=True)
    theirs = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    ours = {k.removeprefix("text."): x for k, x in load_file(tmp_path / "ours" / "open_clip_model.safetensors").items()}
    assert {k.removeprefix("text.") for k in theirs} == ours.keys()
    for tensor, x in theirs.items():
        np.testing.assert_array_equal(ours[tensor.removeprefix("text.")], x.numpy(), err_msg=tensor)
    again = import_model(tmp_path / "ours")
    assert (again.model, again.image) == (run.model, run.image)


@pytest.mark.parametrize("name", ["CLIP", "CLIP's own words"])
def test_a_state_dict_alone(save, tmp_path, name):
    folder = save(name)
    file = tmp_path / "clip.pt"
    state = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    torch.save({"state_dict": {f"module.{key}": x.half() for key, x in state.items()}, "epoch": 3}, file)
    if name == "CLIP":
        (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    run = import_model(file)
    assert run.image == ImageSpec(16)
    report = verify_model(run, file)
    assert ("token ids" in report.facts.get("not compared", "")) is (name == "CLIP")


def test_positions_are_resampled_as_open_clip_does(save):
    folder = save("CLIP")
    edit(folder / "open_clip_config.json", model_cfg={"vision_cfg": VISION | {"image_size": 28}})
    run = import_model(folder)
    assert (run.model.image.image_size, run.image.size) == (28, 28)
    verify_model(run, folder)


def test_what_differs_is_named(save):
    folder = save("CLIP")
    run = import_model(folder)
    edit(folder / "open_clip_config.json", model_cfg={"quick_gelu": True}, preprocess_cfg={"resize_mode": "squash"})
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(run, folder)
    names = {problem.split(" [")[0] for problem in error.value.problems}
    assert names >= {"pixels", "image/encoder/block_0", "text/encoder/block_0", "logits"}
    assert "token ids" not in names


def test_padding_that_the_model_reads(save):
    folder = save("SigLIP")
    run = import_model(folder)
    edit(folder / "tokenizer_config.json", pad_token="<|endoftext|>")
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(run, folder)
    names = [problem.split(" [")[0] for problem in error.value.problems]
    assert "token ids" not in names
    assert names[-3:] == ["text embeddings", "text embeddings, normalised", "logits"]
    verify_model(import_model(folder), folder)


def published():
    """The configs that come with open_clip, of models that need neither timm's nor HF's towers."""
    for file in sorted(importlib.resources.files("open_clip").joinpath("model_configs").iterdir(), key=str):
        config = json.loads(file.read_text())
        foreign = {"timm_model_name", "hf_model_name"} & {*config["vision_cfg"], *config["text_cfg"]}
        if not foreign and "multimodal_cfg" not in config and isinstance(config["vision_cfg"]["layers"], int):
            yield file.name, config


@pytest.mark.slow
def test_published_configs_fit_their_tensors_and_show_in_them():
    known, refused = 0, {}
    for name, config in published():
        try:
            model = open_clip_model(config, {})
        except ConversionError as error:
            refused[name] = str(error)
            continue
        with torch.device("meta"):
            state = open_clip.CLIP(**config).state_dict()
        tensors = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in state.items()}
        size = model.image.image_size
        pictures = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        ids = jax.ShapeDtypeStruct((1, 2), np.int32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), pictures, ids)["params"]
        with pytest.raises(ConversionError, match=r"missing tensor 'visual.proj'") as error:
            to_params({k: x for k, x in tensors.items() if k != "visual.proj"}, FORMAT.rules(model), expected=shapes)
        assert len(error.value.problems) == 1, name
        inferred = open_clip_model(inferred_config(tensors) | {"quick_gelu": config.get("quick_gelu")}, tensors)
        # How texts are read and what layer scale began with is all that does not show.
        text, scale = model.text.clone(pool="argmax", eos_id=None), inferred.image.layer_scale
        assert inferred == model.clone(text=text, image=model.image.clone(layer_scale=scale)), name
        known += 1
    assert known > 30
    assert all("final_ln_after_pool" in reason for reason in refused.values()), refused

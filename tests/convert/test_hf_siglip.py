"""Folders of `SiglipModel` and `Siglip2Model`, without PyTorch."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.convert import Bundle, ConversionError, detect_format, export_model, import_model, resize_pictures
from mmjax.convert.formats._hf_siglip_config import siglip_config
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import MlpProjector, build_dual_encoder, stack_layers
from tests.convert.folders import edit
from tests.convert.siglip_models import siglip
from tests.trees import assert_equal_trees

CASES = [("hf_siglip", "unigram"), ("hf_siglip", "gemma"), ("hf_siglip2", "gemma")]


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize(
    "settings",
    [
        {"num_layers": 2, "mlp_ratio": 3.25},
        {"act": "gelu", "ln_eps": 1e-5, "image": {"patch_size": 7, "image_size": 21, "num_heads": 4}},
        {"image": {"width": 12, "num_layers": 2}, "text": {"context_length": 5, "width": 20}},
    ],
    ids=["deep", "odd size", "wide text"],
)
def test_round_trip_is_bit_equal(tmp_path, name, kind, settings):
    bundle = siglip(kind, **settings)
    export_model(bundle, tmp_path / "out", format=name)
    assert detect_format(tmp_path / "out") == name
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, bundle.params)
    assert (back.model, back.image, back.context_length) == (bundle.model, bundle.image, bundle.context_length)
    texts = ["a red circle", "", "a cat, two dogs"]
    for found, wanted in zip(
        back.tokenizer.encode(texts, length=9), bundle.tokenizer.encode(texts, length=9), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_tensors_are_laid_out_as_torch_has_them(tmp_path):
    bundle = siglip("gemma")
    for name in ("hf_siglip", "hf_siglip2"):
        export_model(bundle, tmp_path / name, format=name)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("hf_siglip", "hf_siglip2"))
    attn = bundle.params["image"]["attn_pool"]["attn"]
    for row, part in enumerate(("query", "key", "value")):
        rows = slice(16 * row, 16 * (row + 1))
        np.testing.assert_array_equal(one["vision_model.head.attention.in_proj_weight"][rows], attn[part]["kernel"].T)
        np.testing.assert_array_equal(one["vision_model.head.attention.in_proj_bias"][rows], attn[part]["bias"])
    assert one["vision_model.head.probe"].shape == (1, 1, 16)
    np.testing.assert_array_equal(one["logit_scale"], bundle.params["log_scale"][None])
    np.testing.assert_array_equal(one["logit_bias"], bundle.params["bias"][None])
    # A convolution in one of them; a dense layer over rows, columns, channels of a patch in the other.
    patches = "vision_model.embeddings.patch_embedding.weight"
    conv, linear = one.pop(patches), two.pop(patches)
    assert (conv.shape, linear.shape) == ((16, 3, 4, 4), (16, 48))
    np.testing.assert_array_equal(linear, conv.transpose(0, 2, 3, 1).reshape(16, 48))
    assert_equal_trees(one, two)


def test_scanned_layers_are_exported_as_unrolled_ones(tmp_path):
    bundle = siglip(num_layers=2)
    model = bundle.model
    scanned = model.clone(image=model.image.clone(scan=True), text=model.text.clone(scan=True))
    export_model(bundle, tmp_path / "unrolled", format="hf_siglip")
    scanned = bundle._replace(model=scanned, params=stack_layers(bundle.params))
    export_model(scanned, tmp_path / "scanned", format="hf_siglip")
    assert_equal_trees(*(load_file(tmp_path / name / "model.safetensors") for name in ("unrolled", "scanned")))


def test_config_of_a_published_size():
    bundle = siglip()
    model = build_dual_encoder("SigLIP-B/16", text={"attend_padding": True})
    config = siglip_config(Bundle(model, {}, bundle.tokenizer, ImageSpec(224)), "siglip", image_size=224)
    # As the defaults of SiglipVisionConfig and SiglipTextConfig, which are those of google/siglip-base-patch16-224.
    tower = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    tower |= {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    text = {"vocab_size": 32000, "max_position_embeddings": 64, "projection_size": 768, "pad_token_id": 1}
    assert config["vision_config"].items() >= (tower | {"image_size": 224, "patch_size": 16}).items()
    assert config["text_config"].items() >= (tower | text).items()


def test_the_folder_hands_no_mask_to_the_model(tmp_path):
    export_model(siglip(), tmp_path / "out", format="hf_siglip")
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids"]
    assert (settings["pad_token"], settings["model_max_length"], settings["padding_side"]) == ("</s>", 12, "right")
    assert settings["processor_class"] == "SiglipProcessor"


def test_logits_without_bias_have_one_of_zero(tmp_path):
    bundle = siglip()
    params = {key: value for key, value in bundle.params.items() if key != "bias"}
    unbiased = bundle._replace(model=bundle.model.clone(use_bias=False), params=params)
    export_model(unbiased, tmp_path / "out", format="hf_siglip")
    assert_equal_trees(import_model(tmp_path / "out").params, {**params, "bias": np.zeros(())})


OBSTACLES = [
    ({"image": {"pool": "avg"}}, "image.pool is 'avg', HF SigLIP has 'map'"),
    ({"image": {"class_token": True}}, "image.class_token is True, HF SigLIP has False"),
    ({"image": {"num_registers": 2}}, "image.num_registers is 2, HF SigLIP has 0"),
    ({"image": {"position": "sincos"}}, "image.position is 'sincos', HF SigLIP has 'learned'"),
    ({"image": {"pre_norm": True}}, "image.pre_norm is True, HF SigLIP has False"),
    ({"image": {"patch_bias": False}}, "image.patch_bias is False, HF SigLIP has True"),
    ({"image": {"layer_scale": 0.1}}, "image.layer_scale is 0.1, HF SigLIP has None"),
    ({"image": {"output_dim": 16}}, "image.output_dim is 16, HF SigLIP has None"),
    ({"spec": ImageSpec(12)}, "image.image_size is 8, but the pictures are prepared at 12 pixels"),
    ({"text": {"attend_padding": False}}, "text.attend_padding is False, HF SigLIP has True"),
    ({"text": {"causal": True}}, "text.causal is True, HF SigLIP has False"),
    ({"text": {"pool": "mean"}}, "text.pool is 'mean', HF SigLIP has 'last'"),
    ({"text": {"norm_position": "post"}}, "text.norm_position is 'post', HF SigLIP has 'pre'"),
    ({"text": {"type_vocab": 2}}, "text.type_vocab is 2, HF SigLIP has 0"),
    ({"text": {"proj_bias": False}}, "text.proj_bias is False, HF SigLIP has True"),
    ({"text": {"output_dim": None, "width": 16}}, "text.output_dim is None, but HF SigLIP always projects"),
    ({"text": {"vocab_size": 20}}, "the tokenizer has 33 ids, but text.vocab_size is 20"),
    ({"act": "swiglu"}, "text.act is 'swiglu', expected one of 'gelu', 'quick_gelu', 'gelu_tanh'"),
]


@pytest.mark.parametrize(("settings", "message"), OBSTACLES, ids=[message[:25] for _, message in OBSTACLES])
def test_what_hf_siglip_cannot_express(tmp_path, settings, message):
    with pytest.raises(ConversionError) as error:
        export_model(siglip(**settings), tmp_path / "out", format="hf_siglip")
    assert message in error.value.problems
    assert list(tmp_path.iterdir()) == []


def test_all_obstacles_are_listed_at_once(tmp_path):
    bundle = siglip("unigram", image={"pool": "avg"}, text={"causal": True, "attend_padding": False})
    bundle = bundle._replace(context_length=7, model=bundle.model.clone(text_head=MlpProjector(16)))
    with pytest.raises(ConversionError, match="HF SigLIP 2 cannot express this model") as error:
        export_model(bundle, tmp_path / "out", format="hf_siglip2")
    assert error.value.problems == (
        "image.pool is 'avg', HF SigLIP 2 has 'map'",
        "HF SigLIP 2 has no place for text_head",
        "text.causal is True, HF SigLIP 2 has False",
        "text.attend_padding is False, HF SigLIP 2 has True",
        "context_length is 7, but HF SigLIP 2 pads texts to all 12 positions",
        "the tokenizer is not Gemma's (BPE with byte fallback, lower-casing), which HF SigLIP 2 takes",
    )


def test_a_tower_of_another_kind(tmp_path):
    bundle = siglip()
    bundle = bundle._replace(model=bundle.model.clone(text=bundle.model.image))
    with pytest.raises(ConversionError, match="text is a VisionTransformer, expected a TextTransformer"):
        export_model(bundle, tmp_path / "out", format="hf_siglip")


def test_padding_that_transformers_would_replace(tmp_path):
    bundle = siglip()
    padded = Tokenizer(bundle.tokenizer.backend, bos_id=None, eos_id=1, pad_id=3)
    with pytest.raises(ConversionError, match="texts are padded with '▁a', which is not special"):
        export_model(bundle._replace(tokenizer=padded), tmp_path / "out", format="hf_siglip")


@pytest.mark.parametrize("pad", ["</s>", {"content": "</s>", "special": True}])
def test_padding_is_what_the_settings_of_the_tokenizer_name(tmp_path, pad):
    export_model(siglip(), tmp_path / "out", format="hf_siglip")
    edit(tmp_path / "out" / "tokenizer.json", padding=None)
    edit(tmp_path / "out" / "tokenizer_config.json", pad_token=pad)
    assert import_model(tmp_path / "out").tokenizer.pad_id == 1
    (tmp_path / "out" / "tokenizer_config.json").unlink()
    assert import_model(tmp_path / "out").tokenizer.pad_id == 0  # <pad>


def test_the_end_token_is_what_the_settings_of_the_tokenizer_add(tmp_path):
    export_model(siglip("gemma"), tmp_path / "out", format="hf_siglip")
    edit(tmp_path / "out" / "tokenizer.json", post_processor=None)
    edit(tmp_path / "out" / "tokenizer_config.json", add_eos_token=True, add_bos_token=False)
    tokenizer = import_model(tmp_path / "out").tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, 1)


def test_tokenizers_that_cannot_be_taken_over(tmp_path):
    export_model(siglip(), tmp_path / "out", format="hf_siglip")
    edit(tmp_path / "out" / "tokenizer_config.json", padding_side="left")
    with pytest.raises(ConversionError, match="padding_side is 'left', expected 'right'"):
        import_model(tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(ConversionError, match=r"no tokenizer\.json, and spiece\.model is not read"):
        import_model(tmp_path / "out")


def test_import_fills_in_the_defaults_that_folders_leave_out(tmp_path):
    bundle = siglip(num_layers=12, num_heads=12, image={"width": 12}, text={"width": 12})
    export_model(bundle, tmp_path / "out", format="hf_siglip")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for section in ("vision_config", "text_config"):
        for key in ("num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps"):
            del config[section][key]
    del config["text_config"]["projection_size"], config["vision_config"]["vision_use_head"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    assert import_model(tmp_path / "out").model == bundle.model


def test_import_lists_settings_without_counterpart(tmp_path):
    export_model(siglip(), tmp_path / "out", format="hf_siglip")
    vision = {"num_channels": 1, "vision_use_head": False}
    edit(tmp_path / "out" / "config.json", vision_config=vision, text_config={"hidden_act": "relu"})
    edit(tmp_path / "out" / "preprocessor_config.json", do_normalize=False)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "vision_config.num_channels",
        "vision_config.vision_use_head",
        "text_config.hidden_act",
        "do_normalize",
    ]
    edit(tmp_path / "out" / "config.json", model_type="clip")
    with pytest.raises(ConversionError, match="model_type is 'clip', expected 'siglip'"):
        import_model(tmp_path / "out", format="hf_siglip")


def test_pictures_that_siglip_would_cut_off(tmp_path):
    # As google/siglip-so400m-patch14-384: 384 pixels are 27 patches and 6 pixels.
    export_model(siglip(), tmp_path / "out", format="hf_siglip")
    edit(tmp_path / "out" / "config.json", vision_config={"image_size": 384, "patch_size": 14})
    with pytest.raises(ConversionError, match="384 is not divisible by patch_size 14: SigLIP cuts off the last 6 rows"):
        import_model(tmp_path / "out")


def test_variable_resolution_is_refused(tmp_path):
    export_model(siglip("gemma"), tmp_path / "out", format="hf_siglip2")
    naflex = {"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 256, "size": None, "crop_size": None}
    edit(tmp_path / "out" / "preprocessor_config.json", **naflex)
    edit(tmp_path / "out" / "config.json", text_config={"hidden_act": "relu"})
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert len(error.value.problems) == 2
    assert "Siglip2ImageProcessor leaves pictures their shape (NaFlex)" in error.value.problems[1]


def test_other_preprocessing_and_tables_of_siglip2(tmp_path):
    export_model(siglip("gemma"), tmp_path / "out", format="hf_siglip2")
    edit(tmp_path / "out" / "preprocessor_config.json", do_rescale=False)
    edit(tmp_path / "out" / "config.json", vision_config={"num_patches": 6})
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert error.value.problems == (
        "vision_config.num_patches is 6, expected the square of a number",
        "do_rescale is false, expected true",
    )


def test_siglip2_lower_cases_whatever_the_file_says(tmp_path):
    bundle = siglip("gemma")
    export_model(bundle, tmp_path / "out", format="hf_siglip2")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    content = json.loads((tmp_path / "out" / "tokenizer.json").read_text()) | {"normalizer": replace}
    (tmp_path / "out" / "tokenizer.json").write_text(json.dumps(content))
    back = import_model(tmp_path / "out").tokenizer
    ids, _ = bundle.tokenizer.encode(["a red circle"], length=9)
    np.testing.assert_array_equal(back.encode(["A RED Circle"], length=9)[0], ids)


def test_pictures_of_another_size(tmp_path):
    larger = resize_pictures(siglip(), 20)
    export_model(larger, tmp_path / "out", format="hf_siglip")
    back = import_model(tmp_path / "out")
    assert back.params["image"]["position_embedding"].shape == (25, 16)
    assert (back.model.image.image_size, back.image.size) == (20, 20)

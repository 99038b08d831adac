import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import Bundle, ConversionError, export_model, import_model
from mmjax.convert.formats.hf_clip import to_config
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import MlpProjector, build_dual_encoder, stack_layers
from mmjax.paths import flatten


def export(run, out, **changes):
    return export_model(run._replace(**changes), out, format="hf_clip")


def assert_equal_trees(found, wanted):
    found, wanted = flatten(found), flatten(wanted)
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu", "gelu_tanh"])
def test_round_trip_is_bit_equal(tiny, tmp_path, act):
    run = tiny(act=act, ln_eps=1e-6, mlp_ratio=3.25, image={"num_layers": 1, "patch_size": 7, "image_size": 21})
    export(run, tmp_path / "out")
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, run.params)
    # The end token has the largest id, so reading at either is the same.
    text = run.model.text.clone(pool="eos", eos_id=run.tokenizer.eos_id)
    assert back.model == run.model.clone(text=text)
    assert back.image == run.image
    assert back.context_length == run.context_length


def test_scanned_layers_are_exported_as_unrolled_ones(tiny, tmp_path):
    run = tiny()
    scanned = run.model.clone(image=run.model.image.clone(scan=True), text=run.model.text.clone(scan=True))
    export(run, tmp_path / "unrolled")
    export(run, tmp_path / "scanned", model=scanned, params=stack_layers(run.params))
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("unrolled", "scanned")]
    assert_equal_trees(*files)
    assert import_model(tmp_path / "scanned").model.image.scan is False


def test_low_precision_parameters_become_float32(tiny, tmp_path):
    run = tiny()
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), run.params)
    export(run, tmp_path / "out", params=half)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {x.dtype for x in tensors.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(tensors["visual_projection.weight"], half["image"]["proj"]["kernel"].T)


def test_config_of_a_published_size(tokenizer):
    model = build_dual_encoder("ViT-L/14@336", image={"act": "quick_gelu"}, text={"act": "quick_gelu"})
    config = to_config(Bundle(model, {}, tokenizer, ImageSpec(336)), log_scale=4.6052)
    # As in the config of openai/clip-vit-large-patch14-336.
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    vision |= {"image_size": 336, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    text |= {"vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}
    assert config["vision_config"].items() >= vision.items()
    assert config["text_config"].items() >= text.items()
    assert config["text_config"]["eos_token_id"] == tokenizer.eos_id
    assert (config["projection_dim"], config["logit_scale_init_value"]) == (768, 4.6052)


OBSTACLES = [
    ({"image": {"pool": "avg"}}, "image.pool is 'avg', HF CLIP has 'tok'"),
    ({"image": {"num_registers": 4}}, "image.num_registers is 4, HF CLIP has 0"),
    ({"image": {"layer_scale": 1e-5}}, "image.layer_scale is 1e-05, HF CLIP has None"),
    ({"image": {"position": "sincos"}}, "image.position is 'sincos', HF CLIP has 'learned'"),
    ({"image": {"pre_norm": False}}, "image.pre_norm is False, HF CLIP has True"),
    ({"image": {"patch_bias": True}}, "image.patch_bias is True, HF CLIP has False"),
    ({"image": {"act": "swiglu"}}, "image.act is 'swiglu', expected one of 'gelu', 'quick_gelu', 'gelu_tanh'"),
    (
        {"image": {"image_size": 24}, "spec": ImageSpec(16)},
        "image.image_size is 24, but the pictures are prepared at 16",
    ),
    ({"text": {"causal": False}}, "text.causal is False, HF CLIP has True"),
    ({"text": {"norm_position": "post"}}, "text.norm_position is 'post', HF CLIP has 'pre'"),
    ({"text": {"type_vocab": 2}}, "text.type_vocab is 2, HF CLIP has 0"),
    ({"text": {"pool": "last"}}, "text.pool is 'last', but HF CLIP reads the end token"),
    ({"text": {"pool": "eos", "eos_id": 7}}, "text.eos_id is 7, but the tokenizer ends texts with"),
    ({"text": {"vocab_size": 100}}, "ids, but text.vocab_size is 100"),
    ({"output_dim": None, "image": {"width": 8}}, "text.output_dim is None, but HF CLIP always projects"),
]


@pytest.mark.parametrize(("settings", "message"), OBSTACLES, ids=[message[:25] for _, message in OBSTACLES])
def test_what_hf_clip_cannot_express(tiny, tmp_path, settings, message):
    with pytest.raises(ConversionError) as error:
        export(tiny(**settings), tmp_path / "out")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_all_obstacles_are_listed_at_once(tiny, tmp_path):
    run = tiny(act="swiglu", image={"pool": "map", "class_token": False}, text={"pool": "mean", "proj_bias": True})
    with pytest.raises(ConversionError, match="HF CLIP cannot express this model") as error:
        export(run, tmp_path / "out", model=run.model.clone(use_bias=True), context_length=99)
    subjects = [problem.split()[0] for problem in error.value.problems]
    image, text = ["image.pool", "image.class_token", "image.act"], ["text.proj_bias", "text.act", "text.pool"]
    assert subjects == ["use_bias", *image, *text, "context_length"]


def test_reading_the_largest_id_needs_the_end_token_to_have_it(tiny, tmp_path, tokenizer):
    other = Tokenizer(tokenizer.backend, bos_id=tokenizer.bos_id, eos_id=5, pad_id=tokenizer.pad_id)
    with pytest.raises(ConversionError, match="but the end token 5 is not the largest id"):
        export(tiny(), tmp_path / "out", tokenizer=other)
    legacy = Tokenizer(tokenizer.backend, bos_id=tokenizer.bos_id, eos_id=2, pad_id=tokenizer.pad_id)
    with pytest.raises(ConversionError, match="the end token has id 2, which makes HF CLIP read the largest id"):
        export(tiny(text={"pool": "eos", "eos_id": 2}), tmp_path / "out", tokenizer=legacy)


def test_heads_have_no_place(tiny, tmp_path):
    run = tiny()
    with pytest.raises(ConversionError, match="HF CLIP has no place for image_head"):
        export(run, tmp_path / "out", model=run.model.clone(image_head=MlpProjector(4)))


def test_a_tower_of_another_kind(tiny, tmp_path):
    run = tiny()
    with pytest.raises(ConversionError, match="image is a TextTransformer, expected a VisionTransformer"):
        export(run, tmp_path / "out", model=run.model.clone(image=run.model.text))


def test_parameters_of_another_model(tiny, tmp_path):
    with pytest.raises(ConversionError, match=r"missing parameter 'image/encoder/block_1/ln_1/scale' \(16,\)"):
        export(tiny(), tmp_path / "out", params=tiny(num_layers=1).params)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    with pytest.raises(FileExistsError, match="exists, and nothing is written over it"):
        export(tiny(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]
    assert (tmp_path / "out" / "config.json").read_text() == "mine"


def edit(path, **changes):
    """Sets keys of a JSON file; a dict is merged into the one that is there."""
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def test_import_of_a_legacy_folder(tiny, tmp_path):
    run = tiny()
    export(run, tmp_path / "out")
    edit(tmp_path / "out" / "config.json", text_config={"eos_token_id": 2})
    weights = tmp_path / "out" / "model.safetensors"
    save_file(load_file(weights) | {"text_model.embeddings.position_ids": np.arange(14)[None]}, weights)
    back = import_model(tmp_path / "out")
    assert back.model.text == run.model.text  # Pooling at the largest id.
    assert_equal_trees(back.params, run.params)


def test_import_fills_in_the_defaults_that_folders_leave_out(tiny, tmp_path):
    run = tiny(act="quick_gelu", image={"num_layers": 12, "num_heads": 12, "width": 24})
    export(run, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for key in ("num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "num_channels"):
        del config["vision_config"][key]
    config |= {"text_config_dict": config["text_config"], "text_config": {"hidden_size": 1}}
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    back = import_model(tmp_path / "out")
    assert back.model.image == run.model.image
    assert back.model.text.width == 8


def test_import_lists_settings_without_counterpart(tiny, tmp_path):
    export(tiny(), tmp_path / "out")
    edit(
        tmp_path / "out" / "config.json",
        vision_config={"num_channels": 1, "patch_size": [4, 4]},
        text_config={"hidden_act": "relu", "eos_token_id": [1, 2]},
    )
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "vision_config.patch_size",
        "vision_config.num_channels",
        "text_config.hidden_act",
        "text_config.eos_token_id",
    ]
    edit(tmp_path / "out" / "config.json", model_type="siglip")
    with pytest.raises(ConversionError, match="model_type is 'siglip', expected 'clip'"):
        import_model(tmp_path / "out", format="hf_clip")


def test_import_of_files_that_disagree(tiny, tmp_path):
    export(tiny(), tmp_path / "out")
    edit(tmp_path / "out" / "config.json", text_config={"eos_token_id": 3}, vision_config={"image_size": 24})
    with pytest.raises(ConversionError, match="cannot be read as HF CLIP") as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "image.image_size",
        "text.eos_id",
        "tensor 'vision_model.embeddings.position_embedding.weight' has shape (17, 16), expected (37, 16)",
    ]


def test_import_of_other_tensors_names_them_as_the_folder_does(tiny, tmp_path):
    export(tiny(), tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    tensors["lm_head.weight"] = tensors.pop("text_projection.weight")
    tensors["vision_model.pre_layrnorm.bias"] = tensors["vision_model.pre_layrnorm.bias"][:3]
    save_file(tensors, weights)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split("'")[1] for problem in error.value.problems] == [
        "text_projection.weight",
        "lm_head.weight",
        "vision_model.pre_layrnorm.bias",
    ]


def test_export_loads_neither_torch_nor_transformers(tmp_path):
    program = """
        import sys
        import jax, jax.numpy as jnp
        from mmjax.convert import Bundle, export_model, import_model
        from mmjax.data import ImageSpec, train_bpe
        from mmjax.models import build_dual_encoder
        tokenizer = train_bpe(["a cat"], vocab_size=260)
        size = {"width": 8, "num_layers": 1, "num_heads": 1, "output_dim": 4}
        text = size | {"vocab_size": tokenizer.vocab_size, "context_length": 6}
        model = build_dual_encoder("nano/8", image=size | {"image_size": 8}, text=text)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 6), int))
        params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes["params"])
        export_model(Bundle(model, params, tokenizer, ImageSpec(8), 6), sys.argv[1], format="hf_clip")
        import_model(sys.argv[1])
        print(sorted({"torch", "transformers"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

import gzip
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import (
    Bundle,
    ConversionError,
    MissingExtraError,
    Source,
    detect_format,
    export_model,
    import_model,
)
from mmjax.convert.formats import _timm_names, hf_clip
from mmjax.convert.formats._open_clip_config import open_clip_config, open_clip_model
from mmjax.convert.formats._open_clip_inferred import inferred_config
from mmjax.convert.formats._open_clip_tokenizer import read_open_clip_tokenizer
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import MlpProjector, build_dual_encoder
from tests.convert.folders import edit
from tests.convert.naive_vit import openai_image, openai_text
from tests.convert.random_params import with_random_params
from tests.trees import assert_equal_trees

SIGLIP = {"class_token": False, "pool": "map", "pre_norm": False, "patch_bias": True, "ln_eps": 1e-6}
SIGLIP |= {"output_dim": None, "width": 64, "num_heads": 1}
SIGLIP_TEXT = {
    "output_dim": 64,
    "causal": False,
    "attend_padding": True,
    "pool": "last",
    "proj_bias": True,
    "ln_eps": 1e-6,
}


def export(run, out, **changes):
    return export_model(run._replace(**changes), out, format="open_clip")


def with_bias(run):
    return with_random_params(run._replace(model=run.model.clone(use_bias=True, init_bias=-4.0)))


@pytest.fixture
def micro_siglip(monkeypatch):
    """A SigLIP tower that timm would know by name."""
    monkeypatch.setitem(_timm_names._SIZES, "micro", (64, 2, 192))
    monkeypatch.setitem(_timm_names._PICTURES, ("micro", 4), (16,))


@pytest.mark.parametrize(
    "settings",
    [
        {"act": "gelu"},
        {"act": "quick_gelu", "image": {"patch_size": 7, "image_size": 21, "num_heads": 4}},
        {
            "image": {"pool": "avg", "pre_norm": False, "layer_scale": 1e-4, "act": "gelu_tanh", "mlp_ratio": 2.6875},
            "text": {"pool": "first", "ln_eps": 1e-6},
            "spec": ImageSpec(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", "squash"),
        },
        {"image": {"output_dim": 8}, "text": {"output_dim": None}},
    ],
    ids=["CLIP", "quick_gelu, odd size", "mean of the patches, squashed pictures", "no projection of texts"],
)
def test_round_trip_is_bit_equal(tiny, tmp_path, settings):
    run = tiny(**settings)
    export(run, tmp_path / "out")
    assert detect_format(tmp_path / "out") == "open_clip"
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, run.params)
    assert (back.model, back.image, back.context_length) == (run.model, run.image, run.context_length)
    texts = ["Two CATS  and a dog", ""]
    assert_equal_trees(*({"ids": x.tokenizer.encode(texts, length=9)[0]} for x in (back, run)))


def test_round_trip_of_texts_read_at_their_end(tiny, tmp_path, tokenizer):
    run = with_bias(tiny(text={"pool": "eos", "eos_id": tokenizer.eos_id}))
    export(run, tmp_path / "out")
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


@pytest.mark.usefixtures("micro_siglip")
def test_round_trip_of_siglip(tiny, tmp_path):
    run = with_bias(tiny(image=SIGLIP | {"mlp_ratio": 3.0}, text=SIGLIP_TEXT))
    export(run, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]
    assert config["vision_cfg"]["timm_model_name"] == "vit_micro_patch4_siglip_16"
    assert config["custom_text"] is True
    names = load_file(tmp_path / "out" / "open_clip_model.safetensors").keys()
    assert {"visual.trunk.attn_pool.kv.weight", "text.text_projection.bias", "logit_bias"} <= names
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


def state_dict(*, width=64, layers=2, side=4, length=14, vocab_size=290):
    """Random tensors with OpenAI's names, of towers with one head a 64 of their width."""
    rng, dim = np.random.default_rng(1), 12
    shapes = {"visual.conv1.weight": (width, 3, 4, 4), "visual.class_embedding": (width,)}
    shapes |= {"visual.positional_embedding": (1 + side * side, width), "visual.proj": (width, dim)}
    shapes |= {"token_embedding.weight": (vocab_size, width), "positional_embedding": (length, width)}
    shapes |= {"text_projection": (width, dim)}
    norms = ["visual.ln_pre", "visual.ln_post", "ln_final"]
    for name in (f"{tower}transformer.resblocks.{i}" for tower in ("visual.", "") for i in range(layers)):
        shapes |= {f"{name}.attn.in_proj_weight": (3 * width, width), f"{name}.attn.in_proj_bias": (3 * width,)}
        linear = {"attn.out_proj": (width, width), "mlp.c_fc": (3 * width, width), "mlp.c_proj": (width, 3 * width)}
        shapes |= {f"{name}.{part}.weight": shape for part, shape in linear.items()}
        shapes |= {f"{name}.{part}.bias": shape[:1] for part, shape in linear.items()}
        norms += [f"{name}.ln_1", f"{name}.ln_2"]
    shapes |= {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}
    tensors = {name: 0.2 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return tensors | {"logit_scale": np.array(2.5, np.float32)}


@pytest.mark.parametrize("quick", [False, True])
def test_a_state_dict_alone_by_a_naive_reading(tmp_path, tokenizer, quick):
    tensors, settings = state_dict(width=128), {"heads": 2}
    if quick:  # The three sizes are how OpenAI's own are known.
        sizes = {"input_resolution": 16, "context_length": 14, "vocab_size": 290}
        tensors |= {name: np.array(size) for name, size in sizes.items()}
        settings["act"] = lambda x: x / (1 + np.exp(-1.702 * x))
    tokenizer.save(tmp_path / "tokenizer.json")
    save_file(tensors, tmp_path / "clip.safetensors")
    assert detect_format(tmp_path / "clip.safetensors") == "open_clip"
    run = import_model(tmp_path / "clip.safetensors")
    assert (run.model.image.act, run.image) == ("quick_gelu" if quick else "gelu", ImageSpec(16))
    pictures = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    ids, mask = run.tokenizer.encode(["two cats", "a small red circle and a very long text"], length=14)
    output, _ = run.model.apply({"params": run.params}, pictures, ids, text_mask=mask)
    wanted = [openai_image(tensors, picture, **settings) for picture in pictures]
    np.testing.assert_allclose(output.image_embeds, wanted, atol=2e-4)
    np.testing.assert_allclose(output.text_embeds, [openai_text(tensors, row, **settings) for row in ids], atol=2e-4)
    assert output.log_scale == np.float32(2.5)


def test_a_pickle_of_a_custom_text_model_with_bias(tmp_path, tokenizer):
    torch = pytest.importorskip("torch", reason="pickles need the extra 'torch'")
    tensors = state_dict()
    plain = import_model(save(tmp_path / "plain", tensors, tokenizer))
    custom = {name if name.startswith(("visual.", "logit_")) else f"text.{name}": x for name, x in tensors.items()}
    custom |= {"logit_scale": np.full(1, 2.5, np.float32), "logit_bias": np.full(1, -9.0, np.float32)}
    state = {f"module.{name}": torch.tensor(x) for name, x in custom.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "plain" / "custom.pt")
    back = import_model(tmp_path / "plain" / "custom.pt")
    assert back.model == plain.model.clone(use_bias=True)
    assert back.params["bias"] == -9
    assert_equal_trees({name: x for name, x in back.params.items() if name != "bias"}, plain.params)


def save(folder, tensors, tokenizer):
    folder.mkdir(exist_ok=True)
    tokenizer.save(folder / "tokenizer.json")
    save_file(tensors, folder / "clip.safetensors")
    return folder / "clip.safetensors"


def test_what_the_tensors_do_not_say(tmp_path, tokenizer):
    tensors = state_dict(width=32)
    tensors["visual.positional_embedding"] = tensors["visual.positional_embedding"][:-1]
    with pytest.raises(ConversionError) as error:
        import_model(save(tmp_path, tensors, tokenizer))
    assert [problem[:33] for problem in error.value.problems] == [
        "visual.positional_embedding has 1",
        "width 32 of the image tower does ",
        "width 32 of the text tower does n",
        "put the open_clip_config.json of ",
    ]
    trunk = {"visual.trunk.pos_embed": np.zeros((1, 16, 8), np.float32)}
    with pytest.raises(ConversionError, match=r"missing tensor 'visual.conv1.weight'"):
        import_model(save(tmp_path, trunk, tokenizer))


@pytest.mark.parametrize("preset", ["ViT-B/32", "ViT-L/14@336"])
def test_settings_of_the_published_sizes_show_in_their_shapes(tokenizer, preset):
    model = build_dual_encoder(preset)
    image, text = model.image, model.text
    config = open_clip_config(Bundle(model, {}, tokenizer, ImageSpec(image.image_size), 77))["model_cfg"]
    assert config["vision_cfg"]["head_width"] == 64
    shapes = {
        "visual.conv1.weight": (image.width, 3, image.patch_size, image.patch_size),
        "visual.positional_embedding": (1 + (image.image_size // image.patch_size) ** 2, image.width),
        "visual.ln_pre.weight": (image.width,),
        "token_embedding.weight": (text.vocab_size, text.width),
        "positional_embedding": (text.context_length, text.width),
        "text_projection": (text.width, text.output_dim),
    }
    for prefix, tower in (("visual.", image), ("", text)):
        for i in range(tower.num_layers):
            shapes[f"{prefix}transformer.resblocks.{i}.mlp.c_fc.weight"] = (4 * tower.width, tower.width)
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert open_clip_model(inferred_config(tensors), tensors) == open_clip_model(config, tensors) == model


def test_positions_of_another_grid_are_resampled(tiny, tmp_path):
    run = tiny()
    table = np.concatenate([np.full((1, 16), 3.0), np.full((16, 16), 7.0)])
    run.params["image"]["position_embedding"] = table
    export(run, tmp_path / "out")
    file = tmp_path / "out" / "open_clip_config.json"
    vision = json.loads(file.read_text())["model_cfg"]["vision_cfg"]
    edit(file, model_cfg={"vision_cfg": vision | {"image_size": 24}})
    back = import_model(tmp_path / "out")
    assert (back.image.size, back.model.image.image_size) == (24, 24)
    wanted = np.concatenate([table[:1], np.full((36, 16), 7.0)])
    np.testing.assert_allclose(back.params["image"]["position_embedding"], wanted, atol=1e-5)


OBSTACLES = [
    ({"image": {"pool": "map"}}, "image.pool is 'map', open_clip has 'tok', 'avg'"),
    ({"image": {"num_registers": 4}}, "image.num_registers is 4, open_clip has 0"),
    ({"image": {"patch_bias": True}}, "image.patch_bias is True, open_clip has False"),
    ({"image": {"act": "quick_gelu"}}, "image.act is 'quick_gelu' and text.act 'gelu', but quick_gelu is set for both"),
    ({"image": {"act": "swiglu"}}, "image.act is 'swiglu', expected one of 'gelu', 'gelu_tanh', 'quick_gelu'"),
    ({"image": SIGLIP}, "except in SigLIP towers of the published sizes, of which this is none"),
    ({"image": {"output_dim": None, "width": 12}}, "image.output_dim is None, but open_clip always projects"),
    ({"text": {"causal": False}}, "text.attend_padding is False, but open_clip masks no padding, which counts with"),
    ({"text": {"pool": "last"}}, "which counts with causal=True and pool='last'"),
    ({"text": {"pool": "mean"}}, "text.pool is 'mean', open_clip has 'argmax', 'eos', 'first', 'last'"),
    ({"text": {"pool": "eos", "eos_id": 7}}, "text.eos_id is 7, but the tokenizer ends texts with"),
    ({"text": {"type_vocab": 2}}, "text.type_vocab is 2, open_clip has 0"),
    ({"spec": ImageSpec(16, resize="lanczos")}, "resized by 'lanczos', open_clip has 'bicubic', 'bilinear'"),
    ({"spec": ImageSpec(16, scaled_size=18)}, "cut out of 18 pixels, but open_clip cuts them out of their own size"),
]


@pytest.mark.parametrize(("settings", "message"), OBSTACLES, ids=[message[:25] for _, message in OBSTACLES])
def test_what_open_clip_cannot_express(tiny, tmp_path, settings, message):
    with pytest.raises(ConversionError) as error:
        export(tiny(**settings), tmp_path / "out")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("micro_siglip")
def test_a_siglip_tower_is_what_its_name_says(tiny, tmp_path):
    with pytest.raises(ConversionError) as error:
        export(tiny(image=SIGLIP | {"act": "gelu_tanh"}), tmp_path / "out")
    assert error.value.problems == (
        "image.mlp_ratio is 4.0, open_clip has 3.0",
        "image.act is 'gelu_tanh', open_clip has 'gelu'",
    )


def test_what_lies_around_the_towers(tiny, tmp_path, tokenizer):
    run, (bos, eos) = tiny(), (tokenizer.bos_id, tokenizer.eos_id)
    model = run.model.clone(image_head=MlpProjector(4))
    ends_low = Tokenizer(tokenizer.backend, bos_id=bos, eos_id=bos, pad_id=eos)
    with pytest.raises(ConversionError) as error:
        export(run, tmp_path / "out", model=model, context_length=9, tokenizer=ends_low)
    assert [problem.split()[-1] for problem in error.value.problems] == ["image_head", str(bos), "positions"]
    common = Tokenizer(tokenizer.backend, bos_id=bos, eos_id=eos, pad_id=0)
    with pytest.raises(ConversionError, match="which is not special: `transformers` pads with the end token"):
        export(tiny(text=SIGLIP_TEXT), tmp_path / "out", tokenizer=common)


def test_import_lists_settings_without_counterpart(tiny, tmp_path):
    export(tiny(), tmp_path / "out")
    vision = {"layers": [3, 4, 6, 3], "attentional_pool": True, "pool_type": "avg", "final_ln_after_pool": True}
    text = {"hf_model_name": "roberta-base", "pool_type": "none"}
    file = tmp_path / "out" / "open_clip_config.json"
    edit(file, model_cfg={"vision_cfg": vision, "text_cfg": text})
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "vision_cfg.attentional_pool",
        "vision_cfg.layers",
        "vision_cfg.final_ln_after_pool",
        "text_cfg.hf_model_name",
        "text_cfg.pool_type",
    ]
    text = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "all", "strip_sep_token": True}}
    edit(
        file,
        model_cfg={"vision_cfg": {}, "text_cfg": text},
        preprocess_cfg={"interpolation": "random", "resize_mode": "longest"},
    )
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "preprocess_cfg.interpolation",
        "preprocess_cfg.resize_mode",
        "the tokenizer's strip_sep_token",
        "the tokenizer's clean",
    ]
    edit(file, model_cfg={"vision_cfg": {"timm_model_name": "vit_base_patch16_224"}, "text_cfg": {}})
    with pytest.raises(ConversionError, match=r"vision_cfg.timm_proj is 'linear', expected 'none', as SigLIP has it"):
        import_model(tmp_path / "out")


@pytest.mark.parametrize(
    ("clean", "text", "same"),
    [("canonicalize", "Two  CATS, one_dog; it's!", "two cats one dog its"), ("lower", " Two\tCATS ", "two cats")],
)
def test_cleaning_becomes_part_of_the_tokenizer(tmp_path, tokenizer, clean, text, same):
    tokenizer.save(tmp_path / "tokenizer.json")
    cleaned = read_open_clip_tokenizer(tmp_path, {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": clean}})
    rows, _ = cleaned.encode([text, same], length=20)
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[1], tokenizer.encode([same], length=20)[0][0])
    assert not np.array_equal(*tokenizer.encode([text, same], length=20)[0])


def test_clip_s_own_words(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConversionError, match=r"copy bpe_simple_vocab_16e6.txt.gz .*, or pip install open_clip"):
        read_open_clip_tokenizer(tmp_path, {})
    with pytest.raises(ConversionError, match=r"no tokenizer.json, and spiece.model"):
        read_open_clip_tokenizer(tmp_path, {"hf_tokenizer_name": "x"})
    merges = "#version: 0.2\nr e\nre d</w>\n"
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(merges.encode()))
    words = read_open_clip_tokenizer(tmp_path, {})
    assert (words.vocab_size, words.eos_id, words.pad_id) == (516, 515, 0)
    assert words.encode(["RED"], length=4)[0].tolist() == [[514, 513, 515, 0]]
    with pytest.raises(ConversionError, match="clean is 'whitespace', expected one of 'lower'"):
        read_open_clip_tokenizer(tmp_path, {"tokenizer_kwargs": {"clean": "whitespace"}})


def test_folders_that_hold_more_than_open_clip(tiny, tmp_path):
    run = tiny()
    export(run, tmp_path / "out")
    export_model(run, tmp_path / "hf", format="hf_clip")
    for file in (tmp_path / "out").glob("open_clip*"):
        file.rename(tmp_path / "hf" / file.name)
    assert detect_format(tmp_path / "hf") == "hf_clip"
    weights = tmp_path / "hf" / "open_clip_model.safetensors"
    with pytest.raises(ConversionError, match="several formats fit") as error:
        detect_format(weights)
    assert [problem.split(";")[0] for problem in error.value.problems] == ["hf_clip", "open_clip"]
    assert_equal_trees(import_model(weights, format="open_clip").params, run.params)
    assert not hf_clip.FORMAT.detect(Source(tmp_path / "out"))


def test_verification_names_what_it_needs(tiny, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="asked for before open_clip")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"verification needs open_clip, .* pip install 'mmjax.open_clip.'"):
        export_model(tiny(), tmp_path / "out", format="open_clip", verify=True)
    assert list(tmp_path.iterdir()) == []

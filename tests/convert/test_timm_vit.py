import json
import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, MissingExtraError, detect_format, export_model, import_model
from mmjax.convert.formats import timm_vit
from mmjax.convert.formats._timm_names import published_fields, published_heads, siglip_architecture, siglip_fields
from mmjax.convert.source import Source
from mmjax.data import ImageSpec
from mmjax.models import VisionTransformer
from tests.convert.folders import edit
from tests.convert.naive_vit import timm_vit as naive
from tests.convert.vision_backbones import tiny_backbone
from tests.trees import assert_equal_trees

CLIP = {"pre_norm": True, "patch_bias": False, "ln_eps": 1e-5, "output_dim": 12}
SIGLIP = {"class_token": False, "pool": "map", "act": "gelu_tanh", "mlp_ratio": 3.25}
DINOV2 = {"layer_scale": 1e-5, "num_registers": 3}


def export(run, out, **changes):
    return export_model(run._replace(**changes), out, format="timm_vit")


def with_params(run, **changes):
    return run._replace(params={"image": {**run.params["image"], **changes}})


@pytest.mark.parametrize(
    "settings",
    [
        {"output_dim": 7, "proj_bias": True, "num_layers": 2, "spec": ImageSpec(16, scaled_size=18)},
        CLIP | {"act": "quick_gelu", "patch_size": 7, "image_size": 21},
        SIGLIP | {"spec": ImageSpec(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", "squash", 20)},
        {"class_token": False, "pool": "avg", "num_heads": 4},
        {"pool": "avg", "layer_scale": 0.5},
        DINOV2,
        DINOV2 | {"class_token": False, "pool": "avg"},
        {"act": "swiglu", "mlp_ratio": 2.6875, "layer_scale": 1.0},
    ],
    ids=["augreg", "CLIP", "SigLIP", "mean", "mean and class token", "registers", "registers alone", "swiglu"],
)
def test_round_trip_is_bit_equal(tmp_path, settings):
    run = tiny_backbone(**settings)
    export(run, tmp_path / "out")
    assert detect_format(tmp_path / "out") == "timm_vit"
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, run.params)
    assert (back.model, back.image, back.tokenizer, back.context_length) == (run.model, run.image, None, None)


@pytest.mark.parametrize("settings", [{"num_registers": 2}, {"num_registers": 0}])
def test_a_class_token_without_position(tmp_path, settings):
    run = tiny_backbone(**settings)
    table = run.params["image"]["position_embedding"].at[0].set(0)
    export(with_params(run, position_embedding=table), tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["pos_embed"].shape == (1, 16, 16)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_args"]["no_embed_class"] is True
    np.testing.assert_array_equal(import_model(tmp_path / "out").params["image"]["position_embedding"], table)


def state_dict(*, width=16, layers=2, side=4, registers=0, class_token=True, pool=None, head=None, pre_norm=False):
    """Random tensors with timm's names; positions for class token and registers too."""
    hidden, rng = 3 * width, np.random.default_rng(1)
    shapes = {"patch_embed.proj.weight": (width, 3, 4, 4)}
    shapes |= {"norm_pre.weight": (width,), "norm_pre.bias": (width,)} if pre_norm else {}
    shapes |= {} if pre_norm else {"patch_embed.proj.bias": (width,)}
    shapes |= {"cls_token": (1, 1, width)} if class_token else {}
    shapes |= {"reg_token": (1, registers, width)} if registers else {}
    shapes["pos_embed"] = (1, class_token + registers + side * side, width)
    mlp = {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), **mlp}
    for i in range(layers):
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in linear.items()}
        shapes |= {f"blocks.{i}.{name}.bias": shape[:1] for name, shape in linear.items()}
        shapes |= {f"blocks.{i}.norm{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    if pool == "map":
        linear = {"q": (width, width), "kv": (2 * width, width), "proj": (width, width), **mlp}
        shapes |= {f"attn_pool.{name}.weight": shape for name, shape in linear.items()}
        shapes |= {f"attn_pool.{name}.bias": shape[:1] for name, shape in linear.items()}
        shapes |= {
            "attn_pool.latent": (1, 1, width),
            "attn_pool.norm.weight": (width,),
            "attn_pool.norm.bias": (width,),
        }
    shapes |= {"head.weight": (head, width), "head.bias": (head,)} if head else {}
    return {name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, tensors, architecture, *, heads=4, size=16, **model_args):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    pretrained = {"input_size": [3, size, size], "fixed_input_size": True, "crop_pct": 0.9, "mean": [0.5] * 3}
    config = {
        "architecture": architecture,
        "pretrained_cfg": pretrained,
        "model_args": {"num_heads": heads, **model_args},
    }
    (folder / "config.json").write_text(json.dumps(config))


def embed(run, pictures):
    output, _ = run.model.apply({"params": run.params}, pictures)
    return output.image_embeds


@pytest.mark.parametrize(
    ("architecture", "settings", "naive_settings"),
    [
        ("vit_base_patch16_224", {"head": 5}, {}),
        ("vit_base_patch16_clip_224", {"head": 5, "pre_norm": True}, {"eps": 1e-5}),
        (
            "vit_base_patch16_clip_quickgelu_224",
            {"pre_norm": True},
            {"eps": 1e-5, "act": lambda x: x / (1 + np.exp(-1.702 * x))},
        ),
        ("vit_base_patch16_siglip_224", {"class_token": False, "pool": "map"}, {}),
        ("vit_base_patch16_siglip_gap_224", {"class_token": False, "head": 5}, {}),
        ("vit_base_patch14_reg4_dinov2", {"registers": 4}, {}),
        ("vit_so150m_patch16_reg4_map_256", {"class_token": False, "registers": 4, "pool": "map"}, {}),
    ],
)
def test_tensors_of_timm_by_a_naive_reading(tmp_path, architecture, settings, naive_settings):
    tensors = state_dict(**settings)
    write(tmp_path, tensors, architecture)
    run = import_model(tmp_path)
    pictures = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    wanted = [naive(tensors, picture, heads=4, **naive_settings) for picture in pictures]
    np.testing.assert_allclose(embed(run, pictures), wanted, atol=2e-5)
    # Written again, the tensors are read the same, wherever the positions of registers went.
    export(run, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    np.testing.assert_allclose([naive(again, x, heads=4, **naive_settings) for x in pictures], wanted, atol=1e-5)


def test_variants_that_compute_the_same(tmp_path):
    tensors = state_dict(head=5)
    for i in range(2):
        tensors[f"blocks.{i}.attn.qkv.bias"] = np.zeros(48, np.float32)
    tensors["head.bias"] = np.zeros(5, np.float32)
    write(tmp_path / "a", tensors, "vit_base_patch16_224")
    renamed = {f"fc_{name}" if name.startswith("norm.") else name: x for name, x in tensors.items()}
    fewer = {name: x for name, x in renamed.items() if not name.endswith("qkv.bias")}
    write(tmp_path / "b", fewer, "vit_base_patch16_224_miil", fc_norm=True)
    first, second = (import_model(tmp_path / name) for name in ("a", "b"))
    assert first.model == second.model
    assert first.model.image.proj_bias is False  # The bias is zero, as that of CLIP's projection in timm.
    assert_equal_trees(second.params, first.params)
    export(first, tmp_path / "again")
    assert_equal_trees(load_file(tmp_path / "again" / "model.safetensors"), tensors)


def test_a_head_that_the_config_leaves_out(tmp_path):
    write(tmp_path, state_dict(head=5), "vit_base_patch16_224")
    assert import_model(tmp_path).model.image.output_dim == 5
    edit(tmp_path / "config.json", num_classes=0)
    assert import_model(tmp_path).model.image.output_dim is None
    edit(tmp_path / "config.json", num_classes=6)
    with pytest.raises(ConversionError, match=r"'head.weight' has shape \(5, 16\), expected \(6, 16\)"):
        import_model(tmp_path)


def test_positions_of_another_grid_are_resampled(tmp_path):
    tensors = state_dict(registers=2)
    tensors["pos_embed"] = np.concatenate([np.arange(3.0), np.full(16, 7.0)])[None, :, None].repeat(16, 2).astype("f4")
    write(tmp_path, tensors, "vit_base_patch14_reg4_dinov2", size=24)
    run = import_model(tmp_path)
    assert (run.model.image.image_size, run.image.size) == (24, 24)
    table = run.params["image"]["position_embedding"]
    np.testing.assert_allclose(table, np.concatenate([[0.0], np.full(36, 7.0)])[:, None].repeat(16, 1), atol=1e-5)
    registers = run.params["image"]["register_embedding"]
    np.testing.assert_allclose(registers, tensors["reg_token"][0] + np.array([[1], [2]]), atol=1e-6)


@pytest.mark.parametrize("scaled", range(16, 33))
def test_sizes_survive_timm_s_rounding(scaled):
    spec = ImageSpec(16, scaled_size=None if scaled == 16 else scaled)
    run = tiny_backbone(spec=spec)
    config = timm_vit.timm_config(run, no_embed_class=False)
    assert math.floor(16 / config["pretrained_cfg"]["crop_pct"]) == scaled
    assert timm_vit.timm_preprocessing(config) == spec


def test_a_config_of_before_pretrained_cfg(tmp_path):
    write(tmp_path, state_dict(width=64, head=5), "")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "input_size": [3, 16, 16], "crop_pct": 1.0}
    (tmp_path / "config.json").write_text(json.dumps(config | {"mean": [0.1, 0.2, 0.3]}))
    run = import_model(tmp_path)
    assert run.image == ImageSpec(16, (0.1, 0.2, 0.3), (0.229, 0.224, 0.225))
    assert run.model.image.num_heads == 1


OBSTACLES = [
    ({"pool": "none"}, "image.pool is 'none', expected one of 'tok', 'avg', 'map'"),
    ({"position": "sincos"}, "image.position is 'sincos', timm ViT has 'learned'"),
    ({"pre_norm": True}, "image.patch_bias is True, timm ViT has False, opposite to pre_norm"),
    ({"ln_eps": 1e-3}, "image.ln_eps is 0.001, expected one of 1e-05, 1e-06"),
    ({"act": "swiglu", "ln_eps": 1e-5}, "image.ln_eps is 1e-05, expected one of 1e-06"),
    ({"act": "swiglu", "pool": "map"}, "image.act is 'swiglu', which timm ViT does not have in the pooling 'map'"),
    ({"image_size": 24, "spec": ImageSpec(16)}, "image.image_size is 24, but the pictures are prepared at 16"),
]


@pytest.mark.parametrize(("settings", "message"), OBSTACLES, ids=[message[:25] for _, message in OBSTACLES])
def test_what_timm_cannot_express(tmp_path, settings, message):
    with pytest.raises(ConversionError) as error:
        export(tiny_backbone(**settings), tmp_path / "out")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_import_lists_what_has_no_counterpart(tmp_path):
    tensors = state_dict(class_token=False)
    tensors["fc_norm.weight"] = tensors.pop("norm.weight")
    write(tmp_path, tensors, "vit_base_patch16_rope_224", act_layer="relu", norm_layer="rmsnorm")
    edit(tmp_path / "config.json", pretrained_cfg={"crop_mode": "border", "interpolation": "random", "crop_pct": 1.5})
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path)
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "architecture 'vit_base_patch16_rope_224'",
        "model_args.norm_layer",
        "model_args.act_layer",
        "fc_norm comes after global_pool 'avg', but the last norm of VisionTransformer before it",
        "crop_pct",
        "interpolation",
        "crop_mode",
    ]
    edit(tmp_path / "config.json", model_args={"img_size": [16, 24]})
    with pytest.raises(ConversionError, match="pictures are 3 x 16 x 24, expected three channels and a square"):
        import_model(tmp_path)


def test_import_of_sizes_that_say_too_little(tmp_path):
    write(tmp_path, state_dict(), "vit_base_patch16_224", heads=None, size=18)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path)
    assert [problem[:40] for problem in error.value.problems] == [
        "pictures of 18 pixels have 2 left over b",
        "the number of heads of width 16 is not k",
    ]


def test_tensors_that_are_not_those_of_a_plain_vit(tmp_path):
    tensors = state_dict()
    tensors["blocks.0.attn.q_norm.weight"] = np.ones(4, np.float32)
    del tensors["blocks.1.norm2.bias"]
    write(tmp_path, tensors, "vit_base_patch16_224")
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path)
    assert [problem.split("'")[1] for problem in error.value.problems] == [
        "blocks.1.norm2.bias",
        "blocks.0.attn.q_norm.weight",
    ]


def test_tensors_alone_say_too_little(tmp_path):
    save_file(state_dict(), tmp_path / "vit.safetensors")
    assert detect_format(tmp_path / "vit.safetensors") == "timm_vit"
    with pytest.raises(ConversionError, match=r"put a config.json such as .*vit_base_patch16_224.* beside them"):
        import_model(tmp_path)


def test_a_folder_of_transformers_is_not_timm_s(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "timm_wrapper", "architecture": "vit_base_patch16_224"}')
    assert not timm_vit.FORMAT.detect(Source(tmp_path))


def test_verification_names_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    pytest.importorskip("torch", reason="asked for before timm")
    with pytest.raises(MissingExtraError, match=r"verification needs timm, .* pip install 'mmjax.open_clip.'"):
        export_model(tiny_backbone(), tmp_path / "out", format="timm_vit", verify=True)
    assert list(tmp_path.iterdir()) == []


def test_published_siglip_towers():
    fields = siglip_fields("vit_so400m_patch14_siglip_224")
    tower = VisionTransformer(14, width=1152, num_layers=27, **fields)
    assert siglip_architecture(tower, 224) == "vit_so400m_patch14_siglip_224"
    assert siglip_architecture(tower, 256) is None
    assert (fields["num_heads"], fields["act"], fields["ln_eps"]) == (16, "gelu", 1e-6)
    assert round(fields["mlp_ratio"] * 1152) == 4304
    assert published_heads("vit_giant_patch14_dinov2", 1536) == 24
    assert published_heads("vit_giantopt_patch16_siglip_256", 1536) == 16
    assert published_fields("vit_large_patch16_siglip_512")["act"] == "gelu_tanh"
    assert published_fields("vit_large_patch16_siglip_384")["act"] == "gelu"
    assert published_fields("vit_huge_patch14_clip_quickgelu_378") == {"act": "quick_gelu", "ln_eps": 1e-5}

"""Folders of timm against `timm` itself."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, export_model, import_model, verify_model
from mmjax.convert.formats._timm_names import _PICTURES, is_plain, siglip_architecture, siglip_fields
from mmjax.convert.formats._timm_vit_config import timm_tower
from mmjax.data import ImageSpec
from tests.convert.folders import edit

torch = pytest.importorskip("torch", reason="parity needs the extra 'open_clip'")
timm = pytest.importorskip("timm", reason="parity needs the extra 'open_clip'")

SMALL = {"patch_size": 4, "embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 16}
# Architecture, changes, preprocessing, tensors that are written otherwise although they compute the same.
CASES = {
    "augreg": ("vit_base_patch16_224", {"num_classes": 7}, {}, ()),
    "features": ("vit_tiny_patch16_224", {"num_classes": 0, "depth": 1, "num_heads": 1}, {}, ()),
    "mean": ("vit_base_patch16_224", {"global_pool": "avg", "fc_norm": False}, {"crop_pct": 1.0}, ()),
    "CLIP": ("vit_base_patch32_clip_224", {"num_classes": 12, "img_size": 20, "num_heads": 4}, {}, ()),
    "CLIP, QuickGELU": ("vit_base_patch32_clip_quickgelu_224", {"num_classes": 12, "depth": 1}, {}, ()),
    "SigLIP": ("vit_base_patch16_siglip_224", {"img_size": 24}, {"crop_mode": "squash", "crop_pct": 0.8}, ()),
    "SigLIP, tanh": ("vit_base_patch32_siglip_256", {"mlp_ratio": 3.7362, "patch_size": 8}, {}, ()),
    "SigLIP, mean": ("vit_base_patch16_siglip_gap_224", {"num_classes": 5}, {"interpolation": "bilinear"}, ()),
    "DINOv2": ("vit_small_patch14_dinov2", {}, {}, ()),
    "DINOv2, registers": ("vit_small_patch14_reg4_dinov2", {}, {}, ()),
    "DINOv2, gated": ("vit_giant_patch14_dinov2", {"embed_dim": 48}, {}, ()),
    "positions of registers": ("vit_so150m_patch16_reg4_map_256", {}, {}, ("pos_embed", "reg_token")),
    "no class position": ("deit3_small_patch16_224", {}, {}, ()),
    "no bias": ("vit_base_patch16_224_miil", {}, {}, ("blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias")),
}


def save(folder, architecture, changes, preprocessing):
    torch.manual_seed(0)
    network = timm.create_model(architecture, **SMALL | changes, pretrained_cfg_overlay=preprocessing)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    timm.models.save_for_hf(network, folder, safe_serialization=True)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_that_timm_wrote(tmp_path, name):
    architecture, changes, preprocessing, rewritten = CASES[name]
    save(tmp_path / "theirs", architecture, changes, preprocessing)
    run = import_model(tmp_path / "theirs")
    report = verify_model(run, tmp_path / "theirs")
    assert len(report.rows) == 3 + len(list(run.params["image"]["encoder"]))
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5
    report = export_model(run, tmp_path / "ours", format="timm_vit", verify=True)
    assert {row.name for row in report.rows} >= {"pixels", "image/encoder/block_0", "image embeddings"}
    theirs, ours = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert theirs.keys() ^ ours.keys() <= set(rewritten)
    for tensor in theirs.keys() - set(rewritten):
        np.testing.assert_array_equal(theirs[tensor], ours[tensor], err_msg=tensor)
    again = import_model(tmp_path / "ours")
    assert (again.model, again.image) == (run.model, run.image)


def test_positions_are_resampled_as_timm_does(tmp_path):
    save(tmp_path, "vit_small_patch14_reg4_dinov2", {"no_embed_class": False}, {})
    edit(tmp_path / "config.json", model_args={"img_size": 28}, pretrained_cfg={"input_size": [3, 28, 28]})
    run = import_model(tmp_path)
    assert (run.model.image.image_size, run.image.size) == (28, 28)
    assert max(row.difference for row in verify_model(run, tmp_path).rows) < 1e-5


def test_the_file_that_is_named_is_verified(tmp_path):
    save(tmp_path, "vit_base_patch16_224", {}, {})
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["blocks.1.mlp.fc2.bias"][0] += 1
    other = tmp_path / "other.safetensors"
    save_file(tensors, other, metadata={"format": "pt"})
    verify_model(import_model(other), other)
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(import_model(other), tmp_path)
    names = [problem.split(" [")[0] for problem in error.value.problems]
    assert names == ["image/encoder/block_1", "image embeddings", "image embeddings, normalised"]


def test_preprocessing_that_differs_is_named(tmp_path):
    save(tmp_path, "vit_base_patch16_224", {}, {})
    run = import_model(tmp_path)
    assert run.image == ImageSpec(16, (0.5,) * 3, (0.5,) * 3, scaled_size=17)
    with pytest.raises(ConversionError, match="pixels"):
        verify_model(run._replace(image=run.image._replace(scaled_size=19)), tmp_path)


def meta(architecture):
    """An architecture without memory for its weights, and their shapes."""
    network = timm.create_model(architecture, device="meta")
    shapes = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    return network, {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.slow
def test_names_say_what_timm_s_code_says():
    acts = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "swiglu"}
    known, refused = 0, {}
    for architecture in filter(is_plain, timm.list_models()):
        network, tensors = meta(architecture)
        try:
            tower = timm_tower(architecture, tensors, image_size=network.patch_embed.img_size[0], arguments={})
        except ConversionError as error:
            refused[architecture] = str(error)
            continue
        block = network.blocks[0]
        found = (tower.num_heads, tower.act, tower.ln_eps, tower.pool, tower.num_registers)
        pool = {"token": "tok"}.get(network.global_pool, network.global_pool)
        wanted = (block.attn.num_heads, acts[type(block.mlp.act).__name__], block.norm1.eps, pool)
        assert found == (*wanted, network.num_reg_tokens), architecture
        known += 1
    assert known > 100
    assert all("fc_norm" in reason or "left over" in reason for reason in refused.values()), refused


@pytest.mark.slow
def test_siglip_towers_are_what_their_names_say():
    for (size, patch_size), pictures in _PICTURES.items():
        for side in pictures:
            architecture = f"vit_{size}_patch{patch_size}_siglip_{side}"
            _, tensors = meta(architecture)
            tower = timm_tower(architecture, tensors, image_size=side, num_classes=0, arguments={})
            assert siglip_architecture(tower, side) == architecture
            assert tower.clone(**siglip_fields(architecture)) == tower

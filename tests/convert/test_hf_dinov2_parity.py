"""HF DINOv2 folders against `transformers` itself."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, export_model, import_model, resize_pictures, verify_model
from mmjax.data import ImageSpec
from mmjax.models import stack_layers
from tests.convert.vision_backbones import tiny_backbone

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

DINOV2 = {"layer_scale": 1.0, "position_resize": "bicubic"}
REGISTERS = {"layer_scale": 1.0, "num_registers": 3}


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.disable_progress_bar()


def largest(report):
    return max(row.difference / max(1, row.magnitude) for row in report.rows)


@pytest.mark.parametrize(
    "settings",
    [
        DINOV2 | {"patch_size": 2, "image_size": 74, "spec": ImageSpec(32, scaled_size=37), "num_layers": 2},
        DINOV2 | {"image_size": 12, "spec": ImageSpec(28, resize="bilinear"), "act": "gelu_tanh"},
        DINOV2 | {"act": "swiglu", "mlp_ratio": 3.0, "spec": ImageSpec(16, fit="squash")},
        REGISTERS | {"patch_size": 2, "image_size": 74, "spec": ImageSpec(32), "mlp_ratio": 2.0},
        REGISTERS | {"image_size": 12, "spec": ImageSpec(28), "num_heads": 4},
    ],
    ids=["smaller pictures", "larger pictures", "swiglu", "registers", "registers, larger pictures"],
)
def test_export_agrees(tmp_path, settings):
    run = tiny_backbone(**settings)
    scanned = run._replace(
        model=run.model.clone(image=run.model.image.clone(scan=True, dtype="bfloat16")), params=stack_layers(run.params)
    )
    report = export_model(scanned, tmp_path / "out", format="hf_dinov2", verify=True)
    names = ["pixels", *(f"image/encoder/block_{i}" for i in range(run.model.image.num_layers))]
    assert [row.name for row in report.rows] == [*names, "image embeddings", "image embeddings, normalised"]
    assert largest(report) < 1e-5
    network = transformers.AutoModel.from_pretrained(tmp_path / "out")
    kind = "Dinov2WithRegistersModel" if run.model.image.num_registers else "Dinov2Model"
    assert type(network).__name__ == kind
    # The names of files, to which older modules and newer ones are mapped.
    network.save_pretrained(tmp_path / "again")
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "out"))
    assert theirs.keys() == ours.keys()


@pytest.mark.parametrize("settings", [DINOV2, REGISTERS], ids=["bicubic", "bicubic_antialias"])
def test_the_other_resampling_is_found(tmp_path, settings):
    run = tiny_backbone(**settings, image_size=36, spec=ImageSpec(16))
    export_model(run, tmp_path / "out", format="hf_dinov2")
    methods = {"bicubic": "bicubic_antialias", "bicubic_antialias": "bicubic"}
    other = run.model.image.clone(position_resize=methods[run.model.image.position_resize])
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(run._replace(model=run.model.clone(image=other)), tmp_path / "out")
    assert error.value.problems[0].startswith("image/encoder/block_0 [4, ")


@pytest.mark.parametrize("size", [16, 28])
def test_tokens_of_several_picture_sizes_are_those_of_one_folder(tmp_path, size):
    run = tiny_backbone(**DINOV2, image_size=20)
    export_model(run, tmp_path / "out", format="hf_dinov2")
    network = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    pixels = np.random.default_rng(0).standard_normal((2, size, size, 3), np.float32)
    with torch.inference_mode():
        theirs = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    for bundle in (run, resize_pictures(run, size)):
        output, intermediates = jax.jit(bundle.model.apply)({"params": bundle.params}, pixels)
        tokens = np.concatenate([intermediates["image"][name] for name in ("prefix", "tokens")], axis=1)
        np.testing.assert_allclose(output.image_embeds, theirs.pooler_output, atol=1e-5)
        np.testing.assert_allclose(tokens, theirs.last_hidden_state, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("Dinov2", {}),
        ("Dinov2", {"use_mask_token": False, "use_swiglu_ffn": True, "layer_norm_eps": 1e-3}),
        ("Dinov2WithRegisters", {"num_register_tokens": 2, "qkv_bias": False}),
    ],
)
def test_folder_that_transformers_wrote(tmp_path, kind, own):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 35, "patch_size": 7}
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes, **own))
    with torch.no_grad():
        for parameter in network.parameters():  # Biases, positions and registers begin at, or near, zero.
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(tmp_path / "theirs")
    preprocessing = transformers.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=28)
    preprocessing.save_pretrained(tmp_path / "theirs")

    run = import_model(tmp_path / "theirs")
    assert (run.image.size, run.image.scaled_size, run.model.image.image_size) == (28, 32, 35)
    assert largest(verify_model(run, tmp_path / "theirs")) < 1e-5
    export_model(run, tmp_path / "again", format="hf_dinov2")
    theirs, again = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "again"))
    # The mask token is not taken over, and absent biases are zeros.
    theirs.pop("embeddings.mask_token", None)
    again.pop("embeddings.mask_token", None)
    added = {name for name in again if name not in theirs}
    assert all(name.endswith(".bias") and not again[name].any() for name in added)
    assert len(added) == (3 if own.get("qkv_bias") is False else 0)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, again[name])


def test_a_broken_weight_is_named(tmp_path):
    run = tiny_backbone(**DINOV2)
    export_model(run, tmp_path / "out", format="hf_dinov2")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.layer.0.layer_scale2.lambda1"][0] += 0.1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(run, tmp_path / "out")
    assert error.value.problems[0].startswith("image/encoder/block_0 [4, 17, 16]: differs")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [DINOV2, REGISTERS], ids=["bicubic", "bicubic_antialias"])
def test_onnx_resamples_too(tmp_path, settings):
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="graphs need the extra 'onnx'")
    run = tiny_backbone(**settings, image_size=36, spec=ImageSpec(16))
    report = export_model(run, tmp_path / "out", format="onnx", verify=True)
    assert report.facts["through"] == "hf_dinov2"
    assert largest(report) < 1e-5

"""HF ViT folders against `transformers` itself."""

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmjax.convert import export_model, import_model, resize_pictures, verify_model
from mmjax.convert.probe import fixed_images
from mmjax.data import ImageSpec, normalize, resize_as
from mmjax.models import stack_layers
from tests.convert.vision_backbones import tiny_backbone

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

VIT = {"position_resize": "bicubic"}


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.disable_progress_bar()


def largest(report):
    return max(row.difference / max(1, row.magnitude) for row in report.rows)


@pytest.mark.parametrize(
    "settings",
    [
        VIT | {"num_layers": 2, "spec": ImageSpec(16, fit="squash", resize="bilinear")},
        VIT | {"pool": "pooler", "act": "gelu_tanh", "mlp_ratio": 3.25, "patch_size": 7, "image_size": 21},
        VIT | {"output_dim": 6, "ln_eps": 1e-12, "num_heads": 4, "spec": ImageSpec(16, scaled_size=18)},
    ],
    ids=["class token", "pooler", "projection"],
)
def test_export_agrees(tmp_path, settings):
    run = tiny_backbone(**settings)
    scanned = run._replace(
        model=run.model.clone(image=run.model.image.clone(scan=True)), params=stack_layers(run.params)
    )
    report = export_model(scanned, tmp_path / "out", format="hf_vit", verify=True)
    names = ["pixels", *(f"image/encoder/block_{i}" for i in range(run.model.image.num_layers))]
    assert [row.name for row in report.rows] == [*names, "image embeddings", "image embeddings, normalised"]
    assert largest(report) < 1e-5
    has_pooler = run.model.image.pool == "pooler" or run.model.image.output_dim is not None
    network = transformers.ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=has_pooler)
    # The names of files, to which older modules and newer ones are mapped.
    network.save_pretrained(tmp_path / "again")
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "out"))
    assert theirs.keys() == ours.keys()


@pytest.mark.parametrize("settings", [{"pool": "pooler"}, {"output_dim": 6}], ids=["pooler", "projection"])
def test_a_user_of_the_folder_gets_the_embeddings_of_the_model(tmp_path, settings):
    run = tiny_backbone(**VIT, **settings, spec=ImageSpec(16, fit="squash"))
    export_model(run, tmp_path / "out", format="hf_vit")
    network = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out", backend="pil")
    assert type(network).__name__ == "ViTModel"
    assert type(processor).__name__ == "ViTImageProcessorPil"
    pictures = fixed_images(19)
    with torch.inference_mode():
        theirs = network(**processor([Image.fromarray(picture) for picture in pictures], return_tensors="pt"))
    pixels = normalize(np.stack([resize_as(picture, run.image) for picture in pictures]), run.image)
    ours, _ = jax.jit(run.model.apply)({"params": run.params}, pixels)
    np.testing.assert_allclose(ours.image_embeds, theirs.pooler_output, atol=1e-5)


def test_pictures_of_another_size_are_those_of_interpolate_pos_encoding(tmp_path):
    run = tiny_backbone(**VIT, pool="pooler")
    export_model(run, tmp_path / "out", format="hf_vit")
    network = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    pixels = np.random.default_rng(0).standard_normal((2, 24, 24, 3), np.float32)
    with torch.inference_mode():
        theirs = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), interpolate_pos_encoding=True)
    larger = resize_pictures(import_model(tmp_path / "out"), 24)
    ours, _ = jax.jit(larger.model.apply)({"params": larger.params}, pixels)
    np.testing.assert_allclose(ours.image_embeds, theirs.pooler_output, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "own", "added"),
    [
        ("ViTModel", {"num_hidden_layers": 2}, set()),
        ("ViTModel", {"pooler_act": "linear", "pooler_output_size": 6, "hidden_act": "quick_gelu"}, set()),
        ("ViTModel", {"qkv_bias": False}, {"key", "query", "value"}),
        ("ViTForImageClassification", {"num_labels": 3}, set()),
    ],
)
def test_folder_that_transformers_wrote(tmp_path, kind, own, added):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"image_size": 21, "patch_size": 7}
    torch.manual_seed(0)
    network = getattr(transformers, kind)(transformers.ViTConfig(**sizes | own))
    with torch.no_grad():
        for parameter in network.parameters():  # Biases and positions begin at, or near, zero.
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(tmp_path / "theirs")
    transformers.ViTImageProcessorPil(size={"height": 21, "width": 21}).save_pretrained(tmp_path / "theirs")

    run = import_model(tmp_path / "theirs")
    assert run.image == ImageSpec(21, (0.5,) * 3, (0.5,) * 3, resize="bilinear", fit="squash")
    assert largest(verify_model(run, tmp_path / "theirs")) < 1e-5
    export_model(run, tmp_path / "again", format="hf_vit")
    theirs, again = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "again"))
    theirs = {name.removeprefix("vit."): x for name, x in theirs.items() if not name.startswith("classifier.")}
    zeros = {f"encoder.layer.0.attention.attention.{part}.bias" for part in added}
    assert again.keys() == theirs.keys() | zeros
    assert not any(again[name].any() for name in zeros)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, again[name])

"""Folders of one tower of CLIP against `transformers` itself."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, export_model, import_model, verify_model
from mmjax.data import ImageSpec, clip_bpe

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

TOWERS = [("hf_clip_vision", "image", "CLIPVisionModel"), ("hf_clip_text", "text", "CLIPTextModel")]


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize(("name", "tower", "kind"), TOWERS)
@pytest.mark.parametrize(
    ("projection", "settings"),
    [
        ("WithProjection", {"act": "gelu", "num_layers": 1, "image": {"patch_size": 7, "image_size": 21}}),
        ("", {"act": "quick_gelu", "output_dim": None, "image": {"width": 8}}),
    ],
    ids=["projected", "alone"],
)
def test_export_agrees(tiny, tmp_path, name, tower, kind, projection, settings):
    bundle = tiny(**settings)
    report = export_model(bundle, tmp_path / "out", format=name, verify=True)
    names = [row.name for row in report.rows]
    assert names[0] == ("pixels" if tower == "image" else "token ids")
    assert names.count(f"{tower} embeddings") == 1
    assert sum("block" in name for name in names) == getattr(bundle.model, tower).num_layers
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5
    assert "not compared" not in report.facts
    network = getattr(transformers, kind + projection).from_pretrained(tmp_path / "out").eval()
    prefix = "vision_model." if tower == "image" else "text_model."
    ours = {key if projection else key.removeprefix(prefix) for key in load_file(tmp_path / "out/model.safetensors")}
    assert network.state_dict().keys() == ours


def foreign(folder, kind):
    """A folder that `transformers` wrote."""
    tower = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    tower |= {"projection_dim": 6}
    if kind.startswith("CLIPVision"):
        config = transformers.CLIPVisionConfig(**tower, image_size=15, patch_size=5)
        size = {"height": 15, "width": 15}
        transformers.CLIPImageProcessorPil(size=size, do_center_crop=False).save_pretrained(folder)
    else:
        merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
        (folder.parent / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\nc a\nca t</w>\n")
        ours = clip_bpe(folder.parent / "merges.txt")
        vocab = ours.backend.get_vocab()
        transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=13).save_pretrained(folder)
        ids = {"bos_token_id": ours.bos_id, "eos_token_id": ours.eos_id, "pad_token_id": ours.eos_id}
        config = transformers.CLIPTextConfig(**tower, **ids, max_position_embeddings=13, vocab_size=ours.vocab_size)
    torch.manual_seed(0)
    getattr(transformers, kind)(config).save_pretrained(folder)


@pytest.mark.parametrize(("name", "tower", "kind"), TOWERS)
@pytest.mark.parametrize("projection", ["WithProjection", ""])
def test_folder_that_transformers_wrote(tmp_path, name, tower, kind, projection):
    foreign(tmp_path / "theirs", kind + projection)
    bundle = import_model(tmp_path / "theirs")
    assert getattr(bundle.model, tower).output_dim == (6 if projection else None)
    assert (bundle.image, bundle.context_length) == ((ImageSpec(15, fit="squash"), None), (None, 13))[tower == "text"]
    verify_model(bundle, tmp_path / "theirs")
    export_model(bundle, tmp_path / "again", format=name)
    prefix = "" if projection else ("vision_model." if tower == "image" else "text_model.")
    theirs, again = (load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "again"))
    assert {prefix + key for key in theirs} == again.keys()
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, again[prefix + key])


@pytest.mark.parametrize(("name", "tower", "kind"), TOWERS)
def test_what_differs_is_named(tiny, tmp_path, name, tower, kind):
    bundle = tiny(num_layers=1)
    export_model(bundle, tmp_path / "out", format=name)
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    next(tensor for key, tensor in tensors.items() if key.endswith("mlp.fc2.bias"))[0] += 0.1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(bundle, tmp_path / "out")
    names = {problem.split(" [")[0] for problem in error.value.problems}
    assert names == {f"{tower}/encoder/block_0", f"{tower} embeddings", f"{tower} embeddings, normalised"}

"""HF CLIP folders against `transformers` itself."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, MissingExtraError, export_model, import_model, verify_model
from mmjax.convert.formats import hf_clip
from mmjax.convert.probe import fixed_images
from mmjax.data import ImageSpec, clip_bpe, normalize, resize_to
from mmjax.models import stack_layers

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

TEXTS = ["A small red circle", "", "two CATS & a café; 東京!", "circle " * 40]


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.disable_progress_bar()


def export(run, out, *, verify):
    return export_model(run, out, format="hf_clip", verify=verify)


def scanned(run):
    model = run.model.clone(image=run.model.image.clone(scan=True), text=run.model.text.clone(scan=True))
    return run._replace(model=model, params=stack_layers(run.params))


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"act": "gelu"}, lambda run: run),
        ({"act": "quick_gelu", "image": {"patch_size": 7, "image_size": 21, "num_layers": 1}, "ln_eps": 1e-3}, scanned),
        (
            {"act": "gelu_tanh", "spec": ImageSpec(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", "squash")},
            lambda run: run._replace(model=run.model.clone(text=run.model.text.clone(dtype="bfloat16"))),
        ),
    ],
    ids=["gelu", "quick_gelu, odd size, scanned", "gelu_tanh, squashed pictures, bfloat16"],
)
def test_export_agrees(tiny, tmp_path, settings, change):
    run = change(tiny(**settings))
    report = export(run, tmp_path / "out", verify=True)
    rows = {row.name: row for row in report.rows}
    assert rows["token ids"].difference == 0
    assert rows["pixels"].difference < 1e-6
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5
    blocks = [name for name in rows if "block" in name]
    assert len(blocks) == run.model.image.num_layers + run.model.text.num_layers
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["agrees"]
    assert (tmp_path / "out" / "parity.md").read_text() == report.to_markdown()
    network = transformers.CLIPModel.from_pretrained(tmp_path / "out")
    assert network.state_dict().keys() == load_file(tmp_path / "out" / "model.safetensors").keys()


def test_a_user_of_the_folder_gets_the_embeddings_of_the_model(tiny, tmp_path):
    run = tiny(text={"context_length": 11})
    export(run, tmp_path / "out", verify=False)
    network = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(network).__name__ == "CLIPModel"
    assert type(processor).__name__ == "CLIPProcessor"
    pictures = fixed_images(19)
    images = [Image.fromarray(picture) for picture in pictures]
    inputs = processor(text=TEXTS, images=images, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        output = network(**inputs)

    pixels = np.stack([normalize(resize_to(picture, run.image.size), run.image) for picture in pictures])
    ids, mask = run.tokenizer.encode(TEXTS, length=run.context_length)
    ours, _ = run.model.apply({"params": run.params}, pixels, ids, text_mask=mask)
    np.testing.assert_array_equal(inputs["input_ids"].numpy()[mask], ids[mask])
    np.testing.assert_allclose(ours.image_embeds, output.vision_model_output.pooler_output, atol=1e-5)
    np.testing.assert_allclose(ours.text_embeds, output.text_model_output.pooler_output, atol=1e-5)
    unmasked, _ = run.model.apply({"params": run.params}, token_ids=ids)
    np.testing.assert_allclose(unmasked.text_embeds, output.text_model_output.pooler_output, atol=1e-5)
    assert processor.tokenizer.decode(inputs["input_ids"][2], skip_special_tokens=True) == run.tokenizer.decode(ids[2])


def test_what_differs_is_named_and_nothing_is_left_behind(tiny, tmp_path, monkeypatch):
    def wrong_layer(folder, tensors):
        tensors["vision_model.encoder.layers.1.mlp.fc2.bias"][0] += 1e-2
        write_tensors(folder, tensors)

    def wrong_mean(folder, image, *, processor):
        write_preprocessing(folder, image._replace(mean=(0.5, 0.5, 0.5)), processor=processor)

    def wrong_normalizer(folder, tokenizer, *, context_length, processor):
        write_tokenizer(folder, tokenizer, context_length=context_length, processor=processor)
        content = json.loads((folder / "tokenizer.json").read_text())
        content["normalizer"] = {"type": "Lowercase"}
        (folder / "tokenizer.json").write_text(json.dumps(content))

    write_tensors, write_tokenizer = hf_clip.write_tensors, hf_clip.write_tokenizer
    write_preprocessing = hf_clip.write_preprocessing
    monkeypatch.setattr(hf_clip, "write_tensors", wrong_layer)
    monkeypatch.setattr(hf_clip, "write_preprocessing", wrong_mean)
    monkeypatch.setattr(hf_clip, "write_tokenizer", wrong_normalizer)
    with pytest.raises(ConversionError, match="no parity") as error:
        export(tiny(), tmp_path / "new" / "out", verify=True)
    names = [problem.split(" [")[0] for problem in error.value.problems]
    assert "image/encoder/block_0" not in names
    assert {"token ids", "pixels", "image/encoder/block_1", "image embeddings", "logits"} <= set(names)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_transformers_would_draw_at_random_are_an_error(tiny, tmp_path):
    export(tiny(), tmp_path / "out", verify=False)
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["vision_model.post_layernorm.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConversionError, match=r"no tensor 'vision_model.post_layernorm.bias'"):
        verify_model(tiny(), tmp_path / "out")


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_verification_without_the_extra_leaves_nothing_behind(tiny, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"verification needs {package}, .* pip install 'mmjax.torch.'"):
        export(tiny(), tmp_path / "out", verify=True)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_transformers_wrote(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\nc a\nca t</w>\n")
    ours = clip_bpe(tmp_path / "merges.txt")
    merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
    tokenizer = transformers.CLIPTokenizer(vocab=ours.backend.get_vocab(), merges=merges, model_max_length=13)
    preprocessing = transformers.CLIPImageProcessorPil(size={"shortest_edge": 15}, crop_size=15)
    transformers.CLIPProcessor(preprocessing, tokenizer).save_pretrained(tmp_path / "theirs")
    tower = {"num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 10, "intermediate_size": 14, "max_position_embeddings": 13, "vocab_size": ours.vocab_size}
    text |= {"bos_token_id": ours.bos_id, "eos_token_id": ours.eos_id, "pad_token_id": ours.eos_id}
    vision = {"hidden_size": 16, "intermediate_size": 24, "image_size": 15, "patch_size": 5}
    config = transformers.CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=6)
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "theirs")

    run = import_model(tmp_path / "theirs")
    assert run.image == ImageSpec(15)
    assert (run.context_length, run.model.image.act) == (13, "quick_gelu")
    verify_model(run, tmp_path / "theirs")
    export(run, tmp_path / "again", verify=False)
    theirs, again = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "again"))
    assert theirs.keys() == again.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, again[name])

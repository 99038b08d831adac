"""Folders of `SiglipModel` and `Siglip2Model` against `transformers` itself."""

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, export_model, import_model, resize_pictures, verify_model
from mmjax.convert.probe import fixed_images
from mmjax.data import ImageSpec, normalize, resize_to
from mmjax.models import stack_layers
from tests.convert.folders import edit
from tests.convert.siglip_models import siglip
from tests.data.foreign_tokenizers import gemma, unigram

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

TEXTS = ["A red circle", "", "two CATS & a café; 東京!", "circle " * 40]
HALF = (0.5, 0.5, 0.5)


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.disable_progress_bar()


def scanned(bundle):
    model = bundle.model.clone(image=bundle.model.image.clone(scan=True), text=bundle.model.text.clone(scan=True))
    return bundle._replace(model=model, params=stack_layers(bundle.params))


def unchanged(bundle):
    return bundle


@pytest.mark.parametrize(
    ("name", "kind", "settings", "change"),
    [
        ("hf_siglip", "unigram", {"num_layers": 2}, scanned),
        (
            "hf_siglip",
            "gemma",
            {"act": "gelu", "ln_eps": 1e-3, "image": {"patch_size": 7, "image_size": 21, "num_heads": 4}},
            lambda bundle: resize_pictures(bundle, 28),
        ),
        ("hf_siglip", "unigram", {"spec": ImageSpec(8), "text": {"width": 20, "context_length": 5}}, unchanged),
        ("hf_siglip2", "gemma", {"num_layers": 2, "image": {"image_size": 12}}, unchanged),
    ],
    ids=["scanned", "odd size, resized", "cropped pictures, wide text", "siglip2"],
)
def test_export_agrees(tmp_path, name, kind, settings, change):
    bundle = change(siglip(kind, **settings))
    report = export_model(bundle, tmp_path / "out", format=name, verify=True)
    rows = {row.name: row for row in report.rows}
    assert rows["token ids"].difference == 0
    assert rows["pixels"].difference < 1e-6
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5
    assert {"image embeddings", "text embeddings", "logits"} <= rows.keys()
    blocks = [name for name in rows if "block" in name]
    assert len(blocks) == bundle.model.image.num_layers + bundle.model.text.num_layers
    kind = {"hf_siglip": "SiglipModel", "hf_siglip2": "Siglip2Model"}[name]
    network = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert type(network).__name__ == kind
    assert network.state_dict().keys() == load_file(tmp_path / "out" / "model.safetensors").keys()


def test_a_user_of_the_folder_gets_the_embeddings_of_the_model(tmp_path):
    bundle = siglip()
    export_model(bundle, tmp_path / "out", format="hf_siglip")
    network = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(processor).__name__ == "SiglipProcessor"
    pictures = fixed_images(11)
    images = [Image.fromarray(picture) for picture in pictures]
    settings = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    inputs = processor(text=TEXTS, images=images, **settings)
    assert set(inputs) == {"input_ids", "pixel_values"}
    with torch.no_grad():
        output = network(**inputs)
    pixels = np.stack([normalize(resize_to(picture, 8, fit="squash"), bundle.image) for picture in pictures])
    ids, mask = bundle.tokenizer.encode(TEXTS, length=bundle.context_length)
    ours, _ = jax.jit(bundle.model.apply)({"params": bundle.params}, pixels, ids, text_mask=mask)
    # All of it: padding is read, too.
    np.testing.assert_array_equal(inputs["input_ids"].numpy(), ids)
    np.testing.assert_allclose(ours.text_embeds, output.text_model_output.pooler_output, atol=1e-5)
    np.testing.assert_allclose(ours.image_embeds, output.vision_model_output.pooler_output, atol=1e-5)


def foreign(folder, kind):
    """A folder that `transformers` wrote, its weights near no usual value."""
    tower = {"num_hidden_layers": 1, "num_attention_heads": 2}
    backend, pad = (unigram(), "</s>") if kind == "siglip" else (gemma(), "<pad>")
    vocab = backend.get_vocab_size()
    text = {"hidden_size": 10, "intermediate_size": 14, "max_position_embeddings": 13, "vocab_size": vocab}
    text |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": backend.token_to_id(pad), "projection_size": 16}
    vision = {"hidden_size": 16, "intermediate_size": 24, "patch_size": 5}
    vision |= {"image_size": 15} if kind == "siglip" else {"num_patches": 9}
    config_class, model_class = (getattr(transformers, f"{kind.capitalize()}{part}") for part in ("Config", "Model"))
    torch.manual_seed(0)
    network = model_class(config_class(text_config=tower | text, vision_config=tower | vision))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    network.save_pretrained(folder)
    settings = {"eos_token": "</s>", "unk_token": "<unk>"} if kind == "siglip" else {}
    tokenizer_class = transformers.PreTrainedTokenizerFast if kind == "siglip" else transformers.Siglip2Tokenizer
    backend.save(str(folder / "tokenizer.json"))
    settings |= {"pad_token": pad, "model_max_length": 13, "padding_side": "right", "model_input_names": ["input_ids"]}
    tokenizer_class.from_pretrained(folder, **settings).save_pretrained(folder)
    transformers.SiglipImageProcessorPil(size={"height": 15, "width": 15}).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_folder_that_transformers_wrote(tmp_path, kind):
    foreign(tmp_path / "theirs", kind)
    bundle = import_model(tmp_path / "theirs")
    assert bundle.image == ImageSpec(15, HALF, HALF, fit="squash")
    assert (bundle.context_length, bundle.tokenizer.pad_id) == (13, 1 if kind == "siglip" else 0)
    report = verify_model(bundle, tmp_path / "theirs")
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5
    export_model(bundle, tmp_path / "again", format=f"hf_{kind}")
    theirs, again = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "again"))
    assert theirs.keys() == again.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(tensor, again[name], err_msg=name)


def test_what_differs_is_named(tmp_path):
    bundle = siglip()
    export_model(bundle, tmp_path / "out", format="hf_siglip")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    tensors["vision_model.head.attention.in_proj_bias"][-1] += 0.1
    save_file(tensors, weights, metadata={"format": "pt"})
    edit(tmp_path / "out" / "tokenizer_config.json", pad_token="<pad>")
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(bundle, tmp_path / "out")
    names = {problem.split(" [")[0] for problem in error.value.problems}
    # The head of the pictures; and padding by another token, in every text that has some, and so in its first block.
    assert {"image embeddings", "text/encoder/block_0", "text embeddings", "logits"} <= names
    assert not names & {"pixels", "token ids", "image/encoder/block_0"}

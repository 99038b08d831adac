"""Folders of sentence-transformers against `transformers`, and against the package itself where it is installed."""

import json

import numpy as np
import pytest

from mmjax.convert import export_model, import_model, verify_model
from mmjax.models import MlpProjector
from tests.convert.bert_bundles import VOCAB, tiny_bert

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

MODELS = {
    "mean": {"pool": "mean", "length": 9, "width": 12, "num_heads": 3},
    "first token, projection": {"pool": "first", "output_dim": 5},
    "last token": {"pool": "last", "act": "gelu_tanh", "num_layers": 1},
    "pooler, MLP": {"pool": "pooler", "head": MlpProjector(6), "ln_eps": 1e-3},
}
TEXTS = ["Two naïve CATS, long", "", "small " * 20, "東 it's a red circle."]


def embeddings(run, texts):
    """Ours, normalised."""
    ids, mask = run.tokenizer.encode(texts, length=run.context_length)
    output, _ = run.model.apply({"params": run.params}, token_ids=ids, text_mask=mask)
    return output.text_embeds / np.linalg.norm(output.text_embeds, axis=1, keepdims=True)


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_export_agrees(tmp_path, settings):
    report = export_model(tiny_bert(**settings), tmp_path / "out", format="sentence_transformers", verify=True)
    rows = {row.name: row for row in report.rows}
    assert rows["token ids"].difference == 0
    assert "not compared" not in report.facts
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5


def test_folder_of_published_form(tmp_path):
    config = {"vocab_size": len(VOCAB), "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3}
    config |= {"intermediate_size": 20, "max_position_embeddings": 16, "initializer_range": 0.5}
    torch.manual_seed(0)
    network = transformers.BertModel(transformers.BertConfig(**config)).eval()
    tokenizer = transformers.BertTokenizer(vocab=VOCAB, model_max_length=16)
    for part in (network, tokenizer):
        part.save_pretrained(tmp_path)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 9, "do_lower_case": false}')
    (tmp_path / "tokenizer.json").write_text(truncated((tmp_path / "tokenizer.json").read_text()))

    run = import_model(tmp_path)
    verify_model(run, tmp_path)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=9, return_tensors="pt")
    assert inputs["attention_mask"].sum(1).tolist() == [8, 2, 9, 9]
    with torch.no_grad():
        tokens = network(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy().astype(bool)
    mean = np.stack([row[valid].mean(0) for row, valid in zip(tokens, mask, strict=True)])
    np.testing.assert_allclose(embeddings(run, TEXTS), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


def truncated(content):
    """As the file of all-MiniLM-L6-v2, which truncates texts earlier than its users do."""
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    return json.dumps(json.loads(content) | {"truncation": truncation})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_the_package_encodes_the_same(tmp_path, settings):
    reason = "sentence-transformers is not installed: pip install sentence-transformers"
    package = pytest.importorskip("sentence_transformers", reason=reason)
    run = tiny_bert(**settings)
    export_model(run, tmp_path / "out", format="sentence_transformers")
    network = package.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert network.max_seq_length == run.context_length
    np.testing.assert_allclose(embeddings(run, TEXTS), network.encode(TEXTS), atol=1e-5)

    network.save(str(tmp_path / "again"))
    back = import_model(tmp_path / "again")
    assert (back.model, back.context_length) == (run.model, run.context_length)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last token", "pooler, MLP"])
def test_graphs_go_through_the_folder(tmp_path, name):
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="graphs need the extra 'onnx'")
    report = export_model(tiny_bert(**MODELS[name]), tmp_path / "out", format="onnx", verify=True)
    assert report.facts["through"] == "sentence_transformers"

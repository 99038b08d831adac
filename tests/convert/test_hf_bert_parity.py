"""BERT folders against `transformers` itself."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, export_model, import_model, verify_model
from tests.convert.bert_bundles import VOCAB, tiny_bert

torch = pytest.importorskip("torch", reason="parity needs the extra 'torch'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra 'torch'")

CONFIG = {
    "vocab_size": len(VOCAB) + 3,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "initializer_range": 0.5,
}


@pytest.mark.parametrize(
    "settings",
    [{"pool": "first", "act": "gelu_tanh", "ln_eps": 1e-3, "type_vocab": 0}, {"pool": "pooler", "length": 9}],
    ids=["first token, no types", "pooler"],
)
def test_export_agrees(tmp_path, settings):
    run = tiny_bert(**settings)
    report = export_model(run, tmp_path / "out", format="hf_bert", verify=True)
    rows = {row.name: row for row in report.rows}
    assert rows["token ids"].difference == 0
    assert "not compared" not in report.facts
    assert [name for name in rows if "block" in name] == ["text/encoder/block_0", "text/encoder/block_1"]
    assert max(row.difference / max(1, row.magnitude) for row in report.rows) < 1e-5


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_folder_that_transformers_wrote(tmp_path, kind):
    theirs, again = tmp_path / "theirs", tmp_path / "again"
    torch.manual_seed(0)
    getattr(transformers, kind)(transformers.BertConfig(**CONFIG)).save_pretrained(theirs)
    transformers.BertTokenizer(vocab=VOCAB, model_max_length=11).save_pretrained(theirs)

    run = import_model(theirs)
    assert run.model.text.pool == ("pooler" if kind == "BertModel" else "first")
    assert (run.context_length, run.model.text.context_length, run.model.text.ln_eps) == (11, 16, 1e-12)
    verify_model(run, theirs)
    export_model(run, again, format="hf_bert")
    found, wanted = (load_file(folder / "model.safetensors") for folder in (again, theirs))
    wanted = {name.removeprefix("bert."): x for name, x in wanted.items() if not name.startswith("cls.")}
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_a_user_of_the_folder_gets_the_embeddings_of_the_model(tmp_path):
    run = tiny_bert(pool="pooler", length=9)
    export_model(run, tmp_path / "out", format="hf_bert")
    network = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["two naïve CATS, very very long", "", "small " * 20]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        wanted = network(**inputs).pooler_output
    ids, mask = run.tokenizer.encode(texts, length=9)
    ours, _ = run.model.apply({"params": run.params}, token_ids=ids, text_mask=mask)
    np.testing.assert_array_equal(inputs["input_ids"], ids)
    np.testing.assert_allclose(ours.text_embeds, wanted, atol=1e-5)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == run.tokenizer.decode(ids[0])


def test_what_differs_is_named(tmp_path):
    run = tiny_bert()
    export_model(run, tmp_path / "out", format="hf_bert")
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.layer.1.attention.self.value.bias"][0] += 1e-2
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConversionError, match="no parity") as error:
        verify_model(run, tmp_path / "out")
    names = [problem.split(" [")[0] for problem in error.value.problems]
    assert names == ["text/encoder/block_1", "text embeddings", "text embeddings, normalised"]

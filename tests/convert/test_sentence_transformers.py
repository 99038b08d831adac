import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import ConversionError, detect_format, export_model, import_model
from mmjax.models import MlpProjector, TextTransformer
from tests.convert.bert_bundles import VOCAB, tiny_bert
from tests.trees import assert_equal_trees


def export(run, out):
    export_model(run, out, format="sentence_transformers")
    return out


def edit(path, **changes):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changes))


MODELS = {
    "mean": {"pool": "mean", "width": 12, "num_heads": 3, "num_layers": 1, "mlp_ratio": 2.5},
    "first token": {"pool": "first"},
    "last token": {"pool": "last", "context_length": 20, "type_vocab": 1},
    "pooler": {"pool": "pooler"},
    "mean, projection": {"pool": "mean", "output_dim": 5},
    "pooler, projection with bias": {"pool": "pooler", "output_dim": 5, "proj_bias": True},
    "mean, MLP": {"pool": "mean", "head": MlpProjector(6, depth=3)},
    "pooler, projection, linear head": {"pool": "pooler", "output_dim": 5, "head": MlpProjector(6, depth=1)},
}


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_round_trip_is_bit_equal(tmp_path, settings):
    run = tiny_bert(**settings, length=9)
    assert detect_format(export(run, tmp_path / "out")) == "sentence_transformers"
    back = import_model(tmp_path / "out")
    assert (back.model, back.context_length, back.image) == (run.model, 9, None)
    assert_equal_trees(back.params, run.params)


def test_linear_head_is_read_as_a_projection(tmp_path):
    run = tiny_bert(pool="mean", head=MlpProjector(6, depth=1))
    back = import_model(export(run, tmp_path / "out"))
    assert back.model == run.model.clone(text=run.model.text.clone(output_dim=6, proj_bias=True), text_head=None)
    assert_equal_trees(back.params["text"]["proj"], run.params["text_head"]["dense_0"])


def test_files_of_a_folder(tmp_path):
    out = export(tiny_bert(pool="pooler", output_dim=5, length=9), tmp_path / "out")
    contents = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    layers = [f"{folder}/{name}" for folder in ("2_Dense", "3_Dense") for name in ("config.json", "model.safetensors")]
    own = ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"]
    bert = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert set(contents) == {*layers, *own, *bert}
    read = {name: json.loads(path.read_text()) for name, path in contents.items() if path.suffix == ".json"}
    chain = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    assert [module["type"] for module in read["modules.json"]] == [f"sentence_transformers.models.{k}" for k in chain]
    paths = ["", "1_Pooling", "2_Dense", "3_Dense", "4_Normalize"]
    assert [module["path"] for module in read["modules.json"]] == paths
    assert read["sentence_bert_config.json"]["max_seq_length"] == 9
    assert read["tokenizer_config.json"]["model_max_length"] == 9
    assert read["1_Pooling/config.json"] == {"word_embedding_dimension": 8, "pooling_mode": "cls"}
    tanh, identity = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
    sizes = {"in_features": 8, "out_features": 8, "bias": True}
    assert read["2_Dense/config.json"] == sizes | {"activation_function": tanh}
    sizes = {"in_features": 8, "out_features": 5, "bias": False}
    assert read["3_Dense/config.json"] == sizes | {"activation_function": identity}
    assert list(load_file(out / "3_Dense" / "model.safetensors")) == ["linear.weight"]
    # `BertModel` has a pooler, which would be drawn at random.
    assert not load_file(out / "model.safetensors")["pooler.dense.weight"].any()


POOLINGS = [
    ({"pooling_mode": "lasttoken", "embedding_dimension": 8, "include_prompt": True}, "last"),
    ({"pooling_mode": ["cls"]}, "first"),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}, "first"),
    ({"pooling_mode_mean_tokens": True, "word_embedding_dimension": 8}, "mean"),
    ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
    ({"pooling_mode_mean_tokens": False}, "mean"),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "1_Pooling pools by cls and mean, expected"),
    ({"pooling_mode": ["mean", "max"]}, "1_Pooling pools by mean and max, expected one of mean, cls, lasttoken"),
    ({"pooling_mode_max_tokens": True}, "1_Pooling pools by max, expected"),
    ({"pooling_mode_mean_sqrt_len_tokens": True}, "1_Pooling pools by mean_sqrt_len, expected"),
    ({"pooling_mode": "weightedmean"}, "1_Pooling pools by weightedmean, expected"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder to read; tests change only what they put back."""
    return export(tiny_bert(pool="mean"), tmp_path_factory.mktemp("folder") / "out")


@pytest.mark.parametrize(("config", "expected"), POOLINGS, ids=lambda value: value if isinstance(value, str) else "")
def test_pooling_as_all_versions_write_it(folder, config, expected):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    if expected in ("mean", "first", "last"):
        assert import_model(folder).model.text.pool == expected
        return
    with pytest.raises(ConversionError, match=expected):
        import_model(folder)


def test_context_length_and_truncation(tmp_path):
    out = export(tiny_bert(pool="mean"), tmp_path / "out")
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    padding = {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    edit(out / "tokenizer.json", truncation=truncation, padding=padding)
    edit(out / "sentence_bert_config.json", max_seq_length=8)
    edit(out / "tokenizer_config.json", model_max_length=12)
    run = import_model(out)
    assert run.context_length == 8
    ids, mask = run.tokenizer.encode(["A SMALL red  circles, very long", "naïve 東x"], length=run.context_length)
    # Accents are taken off, Chinese characters are words, and words without pieces are unknown.
    wanted = ["[CLS]", "a", "small", "red", "circle", "##s", ",", "[SEP]"]
    assert [run.tokenizer.backend.id_to_token(token) for token in ids[0]] == wanted
    wanted = ["[CLS]", "naive", "東", "[UNK]", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert [run.tokenizer.backend.id_to_token(token) for token in ids[1]] == wanted
    assert mask.sum(axis=1).tolist() == [8, 5]
    assert run.tokenizer.decode(ids[0]) == "a small red circles,"

    edit(out / "sentence_bert_config.json", max_seq_length=None)
    assert import_model(out).context_length == 12
    (out / "sentence_bert_config.json").unlink()
    edit(out / "tokenizer_config.json", model_max_length=512)
    assert import_model(out).context_length == 14
    edit(out / "sentence_bert_config.json", max_seq_length=15)
    with pytest.raises(ConversionError, match="context_length is 15, but"):
        import_model(out)


def test_folders_of_other_versions(tmp_path):
    run = tiny_bert(pool="pooler", head=MlpProjector(6))
    out = export(run, tmp_path / "out")
    # Version 6 writes where its modules are now, and fields that say what they do anyway.
    modules = json.loads((out / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.base.modules.any.{module['type'].rsplit('.')[-1]}"
    (out / "modules.json").write_text(json.dumps(modules[:-1]))  # Without normalisation.
    edit(
        out / "sentence_bert_config.json", transformer_task="feature-extraction", module_output_name="token_embeddings"
    )
    prompts = {"query": "query: ", "document": ""}
    edit(out / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="document")
    own = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    edit(out / "2_Dense" / "config.json", **own, activation_function="any.Tanh")
    assert import_model(out).model == run.model
    # Old ones keep the encoder in a folder of its own.
    (out / "0_Transformer").mkdir()
    for path in (*out.glob("config.json"), *out.glob("model*"), *out.glob("tokenizer*"), *out.glob("sentence*")):
        path.rename(out / "0_Transformer" / path.name)
    modules[0]["path"] = "0_Transformer"
    (out / "modules.json").write_text(json.dumps(modules))
    tensors = load_file(out / "0_Transformer" / "model.safetensors")
    extra = {"embeddings.position_ids": np.arange(14)[None]}
    save_file(tensors | extra, out / "0_Transformer" / "model.safetensors")
    back = import_model(out, format="sentence_transformers")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


def test_all_that_has_no_counterpart_is_listed_at_once(tmp_path):
    out = export(tiny_bert(pool="pooler"), tmp_path / "out")
    edit(out / "config.json", model_type="mpnet")
    edit(out / "1_Pooling" / "config.json", pooling_mode="max")
    relu = "torch.nn.modules.activation.ReLU"
    edit(out / "2_Dense" / "config.json", activation_function=relu, use_residual=True, module_input_name="tokens")
    edit(out / "sentence_bert_config.json", do_lower_case=True, transformer_task="fill-mask")
    edit(
        out / "tokenizer.json",
        normalizer={"type": "BertNormalizer", "clean_text": True, "lowercase": False}
        | {"handle_chinese_chars": True, "strip_accents": None},
    )
    edit(out / "config_sentence_transformers.json", prompts={"q": "query: "}, default_prompt_name="q")
    with pytest.raises(ConversionError) as error:
        import_model(out)
    assert [problem.split(",")[0].split(";")[0] for problem in error.value.problems] == [
        "model_type is 'mpnet'",
        "1_Pooling pools by max",
        "2_Dense has activation ReLU",
        "2_Dense.use_residual is True",
        "2_Dense.module_input_name is 'tokens'",
        "do_lower_case is True",
        "transformer_task is 'fill-mask'",
        "every text gets the prompt 'query: '",
    ]
    (out / "modules.json").write_text('[{"type": "sentence_transformers.models.CLIPModel", "path": "0_CLIPModel"}]')
    with pytest.raises(ConversionError, match=r"modules.json lists CLIPModel; expected Transformer, Pooling, Dense"):
        import_model(out)


CHAINS = [
    ({"pool": "mean", "head": MlpProjector(6)}, {"2_Dense": "Tanh"}, "behind mean the dense layers are Tanh 8 -> 6, "),
    ({"pool": "pooler", "output_dim": 5}, {"2_Dense": "GELU"}, "behind cls the dense layers are GELU 8 -> 8, Identity"),
    (
        {"pool": "mean", "head": MlpProjector(6)},
        {"3_Dense": "GELU"},
        "are GELU 8 -> 6, GELU 6 -> 6; expected",
    ),
    ({"pool": "mean", "output_dim": 5}, {"2_Dense": "Tanh"}, "are Tanh 8 -> 5 without bias; expected, in order"),
]


@pytest.mark.parametrize(("settings", "activations", "message"), CHAINS)
def test_dense_layers_of_another_order(tmp_path, settings, activations, message):
    out = export(tiny_bert(**settings), tmp_path / "out")
    for name, activation in activations.items():
        edit(out / name / "config.json", activation_function=f"torch.nn.modules.activation.{activation}")
    with pytest.raises(ConversionError, match=message):
        import_model(out)


def test_tensors_that_do_not_fit_are_named_by_their_module(tmp_path):
    out = export(tiny_bert(pool="mean", output_dim=5), tmp_path / "out")
    save_file({"linear.weight": np.zeros((4, 8), np.float32), "scale": np.ones(1)}, out / "2_Dense/model.safetensors")
    with pytest.raises(ConversionError, match="cannot be read as sentence-transformers") as error:
        import_model(out)
    assert error.value.problems == (
        "tensor '2_Dense/scale' (1,) has no place in the model",
        "tensor '2_Dense/linear.weight' has shape (4, 8), expected (5, 8)",
    )


def test_what_sentence_transformers_cannot_express(tmp_path):
    run = tiny_bert(pool="eos", eos_id=VOCAB["[SEP]"], norm_position="pre", causal=True)
    head = TextTransformer(9, 9, 8, 1, 1, None)
    with pytest.raises(ConversionError, match="sentence-transformers cannot express this model") as error:
        export(run._replace(model=run.model.clone(text_head=head), context_length=99), tmp_path / "out")
    assert [problem.split(",")[0] for problem in error.value.problems] == [
        "text.norm_position is 'pre'",
        "text.causal is True",
        "text.pool is 'eos'",
        "context_length is 99",
        "text_head is a TextTransformer",
    ]
    assert list(tmp_path.iterdir()) == []

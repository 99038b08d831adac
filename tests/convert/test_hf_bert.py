import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax.convert import Bundle, ConversionError, detect_format, export_model, import_model
from mmjax.convert.formats._hf_bert import bert_config
from mmjax.models import DualEncoder, MlpProjector, TextTransformer, VisionTransformer, stack_layers
from tests.convert.bert_bundles import tiny_bert, wordpiece
from tests.trees import assert_equal_trees

TEXTS = ["A small cats", ""]


def export(run, out, **changes):
    return export_model(run._replace(**changes), out, format="hf_bert")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "settings",
    [
        {"pool": "first", "act": "gelu_tanh", "ln_eps": 1e-6, "mlp_ratio": 3.25, "num_layers": 1},
        {"pool": "pooler", "type_vocab": 3, "num_heads": 4, "width": 12, "context_length": 20},
    ],
    ids=["first token", "pooler"],
)
def test_round_trip_is_bit_equal(tmp_path, settings):
    run = tiny_bert(**settings, length=9)
    export(run, tmp_path / "out")
    assert detect_format(tmp_path / "out") == "hf_bert"
    back = import_model(tmp_path / "out")
    assert_equal_trees(back.params, run.params)
    assert (back.model, back.context_length, back.image) == (run.model, 9, None)
    np.testing.assert_array_equal(*(bundle.tokenizer.encode(TEXTS, length=9)[0] for bundle in (back, run)))


def test_text_tower_of_a_dual_encoder_with_scanned_layers(tmp_path):
    run = tiny_bert(pool="pooler")
    image = VisionTransformer(4, 16, 1, 2, 8)
    model = run.model.clone(image=image, text=run.model.text.clone(scan=True))
    params = {"image": {}, "text": stack_layers(run.params)["text"], "log_scale": jnp.ones(())}
    export(run, tmp_path / "out", model=model, params=params)
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert_equal_trees(back.params, run.params)


def test_tower_without_types_gets_one_that_adds_nothing(tmp_path):
    run = tiny_bert(type_vocab=0)
    export(run, tmp_path / "out")
    back = import_model(tmp_path / "out")
    assert back.model.text == run.model.text.clone(type_vocab=1)
    zeros = {"text": {**run.params["text"], "type_embedding": np.zeros((1, 8))}}
    assert_equal_trees(back.params, zeros)


def test_config_of_a_published_size():
    text = TextTransformer(30522, 512, 768, 12, 12, None, type_vocab=2, ln_eps=1e-12, norm_position="post")
    config = bert_config(Bundle(DualEncoder(text=text), {}, wordpiece(), None, 512))
    # As in the config of google-bert/bert-base-uncased.
    assert (
        config.items()
        >= {
            "architectures": ["BertModel"],
            "hidden_act": "gelu",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 512,
            "model_type": "bert",
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "pad_token_id": 0,
            "type_vocab_size": 2,
            "vocab_size": 30522,
        }.items()
    )


OBSTACLES = [
    ({"norm_position": "pre"}, "text.norm_position is 'pre', HF BERT has 'post'"),
    ({"causal": True}, "text.causal is True, HF BERT has False"),
    ({"attend_padding": True}, "text.attend_padding is True, HF BERT has False"),
    ({"output_dim": 4}, "text.output_dim is 4, HF BERT has None"),
    ({"pool": "mean"}, "text.pool is 'mean', HF BERT has 'first', 'pooler'"),
    ({"head": MlpProjector(4)}, "HF BERT has no place for text_head"),
    ({"vocab_size": 11}, "the tokenizer has 21 ids, but text.vocab_size is 11"),
    ({"length": 15}, "context_length is 15, but text.context_length is 14"),
]


@pytest.mark.parametrize(("settings", "message"), OBSTACLES, ids=[message[:30] for _, message in OBSTACLES])
def test_what_bert_cannot_express(tmp_path, settings, message):
    with pytest.raises(ConversionError, match="HF BERT cannot express this model") as error:
        export(tiny_bert(**settings), tmp_path / "out")
    assert error.value.problems == (message,)
    assert list(tmp_path.iterdir()) == []


def test_another_tower_and_no_tokenizer(tmp_path):
    run = tiny_bert()
    with pytest.raises(ConversionError, match="text is a VisionTransformer, expected a TextTransformer"):
        export(run, tmp_path / "out", model=DualEncoder(text=VisionTransformer(4, 16, 1, 2, 8)))
    with pytest.raises(ConversionError, match="no tokenizer is known, which HF BERT holds"):
        export(run, tmp_path / "out", tokenizer=None)


def renamed(tensors):
    """As `BertForPreTraining` of a TensorFlow checkpoint has them."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        tensors = {key.replace(new, name): x for key, x in tensors.items()}
    return {f"bert.{key}": x for key, x in tensors.items()}


def test_folders_of_models_with_a_head_and_of_old_names(tmp_path):
    run = tiny_bert(pool="pooler")
    export(run, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    heads = ("cls.predictions.bias", "cls.seq_relationship.weight", "classifier.weight", "qa_outputs.bias")
    extra = {name: np.ones(3, np.float32) for name in heads}
    extra["bert.embeddings.position_ids"] = np.arange(14)[None]
    save_file(renamed(load_file(weights)) | extra, weights)
    edit(tmp_path / "out" / "config.json", architectures=["BertForPreTraining"])
    assert_equal_trees(import_model(tmp_path / "out").params, run.params)

    no_pooler = {name: x for name, x in load_file(weights).items() if ".pooler." not in name}
    save_file(no_pooler | {"lm_head.weight": np.ones(3, np.float32)}, weights)
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert error.value.problems == ("tensor 'lm_head.weight' (3,) has no place in the model",)
    save_file(no_pooler, weights)
    assert import_model(tmp_path / "out").model.text.pool == "first"


def test_defaults_that_folders_leave_out(tmp_path):
    run = tiny_bert(num_layers=12, num_heads=12, width=24)
    export(run, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for key in ("num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps", "type_vocab_size"):
        del config[key]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    (tmp_path / "out" / "tokenizer_config.json").unlink()
    back = import_model(tmp_path / "out")
    assert back.model == run.model
    assert back.context_length == 14


def test_texts_are_no_longer_than_there_are_positions(tmp_path):
    export(tiny_bert(), tmp_path / "out")
    # What `transformers` writes for "no limit".
    edit(tmp_path / "out" / "tokenizer_config.json", model_max_length=int(1e30))
    assert import_model(tmp_path / "out").context_length == 14


def test_settings_without_counterpart_are_listed(tmp_path):
    export(tiny_bert(), tmp_path / "out")
    changes = {"hidden_act": "relu", "position_embedding_type": "relative_key", "is_decoder": True}
    edit(tmp_path / "out" / "config.json", **changes)
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(ConversionError) as error:
        import_model(tmp_path / "out")
    assert [problem.split(" is ")[0] for problem in error.value.problems] == [
        "config.json.hidden_act",
        "config.json.position_embedding_type",
        "config.json.is_decoder",
        "neither tokenizer.json nor vocab.json with merges.txt",
    ]
    edit(tmp_path / "out" / "config.json", model_type="roberta")
    with pytest.raises(ConversionError, match="model_type is 'roberta', expected 'bert'"):
        import_model(tmp_path / "out", format="hf_bert")

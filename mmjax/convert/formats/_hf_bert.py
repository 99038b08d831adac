"""BERT as `transformers` stores it: its tensors, and what its config and our text tower can say of each other.

Reference: huggingface/transformers 5.23.0, `models/bert/configuration_bert.py` and `modeling_bert.py`.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import ConversionError
from mmjax.convert.hf_config import ACTS, tower_config, tower_fields, tower_problems
from mmjax.convert.hf_network import load_pretrained
from mmjax.convert.layers import layer_norm, layers
from mmjax.convert.obstacles import token_obstacles, tower_obstacles
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, read_json
from mmjax.models import TextTransformer

_LAYER = {
    "attn/query": "attention.self.query",
    "attn/key": "attention.self.key",
    "attn/value": "attention.self.value",
    "attn/out": "attention.output.dense",
    "ln_1": "attention.output.LayerNorm",
    "mlp/fc1": "intermediate.dense",
    "mlp/fc2": "output.dense",
    "ln_2": "output.LayerNorm",
}
_TYPES = "embeddings.token_type_embeddings.weight"
RULES = (
    Rule("text/token_embedding/embedding", "embeddings.word_embeddings.weight"),
    Rule("text/position_embedding", "embeddings.position_embeddings.weight"),
    Rule("text/type_embedding", _TYPES),
    *layer_norm("text/ln_embed", "embeddings.LayerNorm"),
    *layers("text/encoder/block_{i}", "encoder.layer.{i}", _LAYER),
)
# Stored positions, and the heads of pre-training and of tasks, which no embedding needs.
IGNORE = ("*.position_ids", "cls.*", "classifier.*", "qa_outputs.*")

# What BERT takes for granted, in the fields of our tower and in those of its config.
_TEXT = {"norm_position": "post", "causal": False, "attend_padding": False}
_CONFIG = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}

# Folders leave out what equals the defaults of `BertConfig`.
_DEFAULTS: dict[str, Any] = _CONFIG | {
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def bert_tensors(source: Source) -> dict[str, np.ndarray]:
    """The tensors by the names that `BertModel` has for them.

    Models with a head on top keep them below `bert.`; those that came from TensorFlow have norms with gamma and beta.
    """
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    tensors = {}
    for name, tensor in source.tensors.items():
        name = name.removeprefix("bert.")
        for theirs, ours in old.items():
            name = name.replace(theirs, ours)
        tensors[name] = tensor
    return tensors


def has_pooler(source: Source) -> bool:
    """Whether there is one among the tensors."""
    return "pooler.dense.weight" in bert_tensors(source)


def load_bert(source: Source) -> Any:
    """The `BertModel` of a source, with a pooler where the source has one."""
    return load_pretrained("BertModel", source.folder, add_pooling_layer=has_pooler(source))


def bert_obstacles(bundle: Bundle, *, format: str, pools: Collection[str], **fixed: Any) -> list[str]:
    """Every reason why a format that holds a BERT would compute something else than our tower.

    Args:
      bundle: has the tower.
      format: name of the format.
      pools: the poolings that it has.
      **fixed: fields of the tower that it takes for granted, beside those that BERT does.
    """
    text: Any = bundle.model.text
    problems = tower_obstacles(bundle, "text", TextTransformer, format=format, fixed=_TEXT | fixed, acts=ACTS)
    if not isinstance(text, TextTransformer):
        return problems
    if text.pool not in pools:
        problems.append(f"text.pool is {text.pool!r}, {format} has {', '.join(map(repr, pools))}")
    return problems + token_obstacles(bundle, format=format)


def bert_config(bundle: Bundle) -> dict[str, Any]:
    """The `BertConfig` of a bundle without obstacles."""
    text, tokenizer = cast(Any, (bundle.model.text, bundle.tokenizer))
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "dtype": "float32",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        "type_vocab_size": max(1, text.type_vocab),
        "pad_token_id": tokenizer.pad_id,
        **tower_config(text),
    }


def with_types(bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with types of tokens: BERT adds one to each, which of a tower without types is 0."""
    text: Any = bundle.model.text
    return {_TYPES: np.zeros((1, text.width), np.float32), **tensors}


def bert_tower(config: Mapping[str, Any], *, pool: str) -> TextTransformer:
    """The tower of a `BertConfig`, which does not know how it is pooled.

    Raises:
      ConversionError: it is the config of another model, or settings have no counterpart; all are listed.
    """
    if config.get("model_type") != "bert":
        problem = f"model_type is {config.get('model_type')!r}, expected 'bert'"
        raise ConversionError("cannot take over config.json", [problem])
    config = _DEFAULTS | dict(config)
    problems = tower_problems("config.json", config)
    problems += [
        f"config.json.{field} is {config[field]!r}, expected {value!r}"
        for field, value in _CONFIG.items()
        if config[field] != value
    ]
    if problems:
        raise ConversionError("cannot take over config.json", problems)
    return TextTransformer(
        vocab_size=config["vocab_size"],
        context_length=config["max_position_embeddings"],
        type_vocab=config["type_vocab_size"],
        output_dim=None,
        pool=pool,
        **tower_fields(config),
        **_TEXT,
    )


def longest_text(folder: Path, tower: TextTransformer) -> int:
    """Tokens a text may have: what the tokenizer's config says, at most as many as there are positions."""
    said = read_settings(folder / "tokenizer_config.json").get("model_max_length")
    return min(said or tower.context_length, tower.context_length)


def read_settings(file: Path) -> dict[str, Any]:
    """The JSON of a file that a folder may lack; nothing then."""
    return read_json(file) if file.is_file() else {}

"""Text towers to and from folders that `sentence_transformers.SentenceTransformer` loads.

Read and written are a `BertModel`, pooling by mean, first or last token, dense layers as far as they are a pooler, a
projection or an `MlpProjector`, and a normalisation. That one is always written, as embeddings here are compared by
their cosine, and our embeddings are those in front of it. `max_seq_length` is the context length, whatever the
truncation that `tokenizer.json` has of its own.

Reference: Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", EMNLP 2019;
huggingface/sentence-transformers 6.2.0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import ConversionError, read_all
from mmjax.convert.extras import require
from mmjax.convert.format import Format
from mmjax.convert.formats._hf_bert import (
    IGNORE,
    RULES,
    bert_config,
    bert_obstacles,
    bert_tensors,
    bert_tower,
    load_bert,
    longest_text,
    read_settings,
    with_types,
)
from mmjax.convert.formats._sentence_modules import (
    POOLS,
    dense_layers,
    read_dense,
    read_modules,
    read_pooling,
    with_modules,
)
from mmjax.convert.hf_folder import read_tokenizer, write_tokenizer
from mmjax.convert.hf_network import hf_parts
from mmjax.convert.layers import dense
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, write_json
from mmjax.convert.tensor_files import read_tensors, write_tensors
from mmjax.data import Tokenizer
from mmjax.models import DualEncoder, MlpProjector

_NAME = "sentence-transformers"


def _detect(source: Source) -> bool:
    return (source.folder / "modules.json").is_file()


def _encoder(source: Source) -> Source:
    """The encoder's folder, which is the source itself but for old ones."""
    folder = read_modules(source.folder).encoder
    return source if folder == source.folder else Source(folder)


def _prefix(i: int) -> str:
    """What the names of a dense layer's tensors begin with, and the folder that we write it into."""
    return f"{i + 2}_Dense/"


def _tensors(source: Source) -> dict[str, np.ndarray]:
    tensors = bert_tensors(_encoder(source))
    for i, folder in enumerate(read_modules(source.folder).dense):
        tensors |= {_prefix(i) + name: tensor for name, tensor in read_tensors(folder).items()}
    return tensors


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    layers = enumerate(dense_layers(model))
    return (*RULES, *(rule for i, path in layers for rule in dense(path, f"{_prefix(i)}linear")))


def _read(source: Source) -> Bundle:
    modules, encoder = read_modules(source.folder), _encoder(source)
    settings = read_settings(encoder.folder / "sentence_bert_config.json")
    parts = read_all(
        f"cannot read {source.folder}",
        text=lambda: bert_tower(encoder.config, pool="mean"),
        pooling=lambda: read_pooling(modules.pooling),
        dense=lambda: [read_dense(folder) for folder in modules.dense],
        tokenizer=lambda: _read_tokenizer(encoder.folder, lower_case=settings.get("do_lower_case", False)),
        usage=lambda: _check_usage(source.folder, settings),
    )
    model = with_modules(DualEncoder(text=parts["text"]), parts["pooling"], parts["dense"])
    length = settings.get("max_seq_length") or longest_text(encoder.folder, parts["text"])
    return Bundle(model, {}, parts["tokenizer"], None, length)


def _read_tokenizer(folder: Path, *, lower_case: bool) -> Tokenizer:
    tokenizer = read_tokenizer(folder)
    normalizer = tokenizer.backend.normalizer
    if lower_case and (normalizer is None or normalizer.normalize_str("A") != "a"):
        problem = "do_lower_case is True, but the normalizer of tokenizer.json keeps capitals; add one that does not"
        raise ConversionError(f"cannot take over {folder}", [problem])
    return tokenizer


def _check_usage(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConversionError where the encoder is used in another way, or is given more than the text."""
    problems = []
    if (task := settings.get("transformer_task", "feature-extraction")) != "feature-extraction":
        problems.append(f"transformer_task is {task!r}, expected 'feature-extraction'")
    config = read_settings(folder / "config_sentence_transformers.json")
    if prompt := (config.get("prompts") or {}).get(config.get("default_prompt_name")):
        problems.append(f"every text gets the prompt {prompt!r}; set default_prompt_name to null, and put it in front")
    if problems:
        raise ConversionError(f"cannot take over {folder}", problems)


def _obstacles(bundle: Bundle) -> list[str]:
    head = bundle.model.text_head
    tower = bundle._replace(model=bundle.model.clone(text_head=None))
    problems = bert_obstacles(tower, format=_NAME, pools=POOLS)
    if head is not None and not isinstance(head, MlpProjector):
        problems.append(f"text_head is a {type(head).__name__}, expected an MlpProjector")
    return problems


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    text: Any = bundle.model.text
    layers = dense_layers(bundle.model).values()
    kinds = ["Transformer", "Pooling", *["Dense"] * len(layers), "Normalize"]
    modules = [
        # Every version of the package finds its modules under this name.
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", cast(Any, modules))
    settings = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", settings)

    # A `BertModel` has a pooler, which nothing here reads.
    square = {"weight": np.zeros((text.width, text.width), np.float32), "bias": np.zeros(text.width, np.float32)}
    unused = {f"pooler.dense.{name}": zeros for name, zeros in square.items()}
    bert = {name: tensor for name, tensor in tensors.items() if "/" not in name}
    write_json(folder / "config.json", bert_config(bundle))
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": bundle.context_length, "do_lower_case": False})
    write_tensors(folder, with_types(bundle, bert | unused))
    write_tokenizer(folder, bundle.tokenizer, context_length=bundle.context_length)

    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": text.width, "pooling_mode": POOLS[text.pool]}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    for i, layer in enumerate(layers):
        prefix = _prefix(i)
        (folder / prefix).mkdir()
        write_json(folder / prefix / "config.json", layer.to_config())
        own = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        write_tensors(folder / prefix, own)


def _load(source: Source) -> Network:
    torch = require("torch", extra="torch", purpose="verification")
    modules, encoder = read_modules(source.folder), _encoder(source)
    network, pooling, head = load_bert(encoder), read_pooling(modules.pooling), torch.nn.Sequential()
    for folder in modules.dense:
        layer = read_dense(folder)
        linear = torch.nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        weights = read_tensors(folder)
        linear.load_state_dict({name.removeprefix("linear."): torch.from_numpy(x) for name, x in weights.items()})
        head.extend([linear, getattr(torch.nn, layer.activation)()])

    def embed(ids: Any, mask: Any) -> Any:
        count = mask.cumsum(1)
        pooled = {"mean": mask, "cls": mask * (count == 1), "lasttoken": mask * (count == count[:, -1:])}[pooling]
        tokens = network(ids, mask).last_hidden_state
        return head((tokens * pooled[:, :, None]).sum(1) / pooled.sum(1, keepdim=True))

    return Network(text=Tower(embed, network.encoder.layer), **hf_parts(encoder.folder, image=False))


FORMAT = Format(
    name=_NAME,
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=_obstacles,
    write=_write,
    load=_load,
    towers=("text",),
    ignore=(*IGNORE, "pooler.*"),
    tensors=_tensors,
)

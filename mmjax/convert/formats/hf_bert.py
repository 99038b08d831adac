"""Text towers to and from folders that `transformers.BertModel` loads.

The embedding is the pooler's output where the folder has a pooler, else the first token. `BertModel` draws a pooler at
random where there is none, unless it is loaded with `add_pooling_layer=False`. Folders of models with a head, such as
`BertForMaskedLM`, are read without it. Means over tokens and projections have a place in `sentence_transformers`.

Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL
2019; huggingface/transformers 5.23.0, `models/bert`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import read_all
from mmjax.convert.format import Format
from mmjax.convert.formats._hf_bert import (
    IGNORE,
    RULES,
    bert_config,
    bert_obstacles,
    bert_tensors,
    bert_tower,
    has_pooler,
    load_bert,
    longest_text,
    with_types,
)
from mmjax.convert.hf_folder import read_tokenizer, write_tokenizer
from mmjax.convert.hf_network import hf_parts
from mmjax.convert.layers import dense
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.models import DualEncoder

_NAME = "HF BERT"
_RULES = (*RULES, *dense("text/pooler", "pooler.dense"))


def _detect(source: Source) -> bool:
    return source.config.get("model_type") == "bert" and not (source.folder / "modules.json").is_file()


def _read(source: Source) -> Bundle:
    pool = "pooler" if has_pooler(source) else "first"
    parts = read_all(
        f"cannot read {source.folder}",
        text=lambda: bert_tower(source.config, pool=pool),
        tokenizer=lambda: read_tokenizer(source.folder),
    )
    text = parts["text"]
    return Bundle(DualEncoder(text=text), {}, parts["tokenizer"], None, longest_text(source.folder, text))


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    return _RULES


def _obstacles(bundle: Bundle) -> list[str]:
    return bert_obstacles(bundle, format=_NAME, pools=("first", "pooler"), output_dim=None)


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    write_json(folder / "config.json", bert_config(bundle))
    write_tensors(folder, with_types(bundle, tensors))
    write_tokenizer(folder, bundle.tokenizer, context_length=bundle.context_length)


def _load(source: Source) -> Network:
    network = load_bert(source)

    def embed(ids: Any, mask: Any) -> Any:
        output = network(ids, mask)
        return output.last_hidden_state[:, 0] if network.pooler is None else output.pooler_output

    return Network(text=Tower(embed, network.encoder.layer), **hf_parts(source.folder, image=False))


FORMAT = Format(
    name=_NAME,
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=_obstacles,
    write=_write,
    load=_load,
    towers=("text",),
    ignore=IGNORE,
    tensors=bert_tensors,
)

"""Dual encoders to and from folders that `transformers.CLIPModel` and `CLIPProcessor` load.

Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021;
huggingface/transformers 5.23.0, `models/clip`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle, towers
from mmjax.convert.errors import ConversionError, read_all
from mmjax.convert.format import Format
from mmjax.convert.formats._hf_clip_config import (
    image_obstacles,
    text_config,
    text_obstacles,
    text_tower,
    vision_config,
    vision_tower,
)
from mmjax.convert.hf_folder import read_preprocessing, read_tokenizer, write_preprocessing, write_tokenizer
from mmjax.convert.hf_network import hf_parts, load_pretrained
from mmjax.convert.layers import layer_norm, layers
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, read_json, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.convert.transforms import CONV, DENSE
from mmjax.models import DualEncoder

LAYER = {
    "ln_1": "layer_norm1",
    "attn/query": "self_attn.q_proj",
    "attn/key": "self_attn.k_proj",
    "attn/value": "self_attn.v_proj",
    "attn/out": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
RULES = (
    Rule("image/patch_embed/kernel", "vision_model.embeddings.patch_embedding.weight", CONV),
    Rule("image/class_embedding", "vision_model.embeddings.class_embedding"),
    Rule("image/position_embedding", "vision_model.embeddings.position_embedding.weight"),
    *layer_norm("image/ln_pre", "vision_model.pre_layrnorm"),
    *layers("image/encoder/block_{i}", "vision_model.encoder.layers.{i}", LAYER),
    *layer_norm("image/ln_post", "vision_model.post_layernorm"),
    Rule("image/proj/kernel", "visual_projection.weight", DENSE),
    Rule("text/token_embedding/embedding", "text_model.embeddings.token_embedding.weight"),
    Rule("text/position_embedding", "text_model.embeddings.position_embedding.weight"),
    *layers("text/encoder/block_{i}", "text_model.encoder.layers.{i}", LAYER),
    *layer_norm("text/ln_final", "text_model.final_layer_norm"),
    Rule("text/proj/kernel", "text_projection.weight", DENSE),
    Rule("log_scale", "logit_scale"),
)


def to_config(bundle: Bundle, *, log_scale: float) -> dict[str, Any]:
    """The `CLIPConfig` of a bundle without obstacles."""
    vision, text = vision_config(bundle), text_config(bundle)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": vision["projection_dim"],
        "logit_scale_init_value": log_scale,
        "vision_config": vision,
        "text_config": text,
    }


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    return RULES


def _detect(source: Source) -> bool:
    return source.config.get("model_type") == "clip"


def _read(source: Source) -> Bundle:
    folder, config = source.folder, read_json(source.folder / "config.json")
    if not _detect(source):
        raise ConversionError(f"cannot read {folder}", [f"model_type is {config.get('model_type')!r}, expected 'clip'"])
    dim = config.get("projection_dim", 512)
    # Where old folders have `vision_config_dict`, `transformers` lets it win.
    sections = {key: config.get(f"{key}_dict") or config.get(key) or {} for key in ("vision_config", "text_config")}
    parts = read_all(
        f"cannot read {folder}",
        vision=lambda: vision_tower(sections["vision_config"], output_dim=dim, name="vision_config"),
        text=lambda: text_tower(sections["text_config"], output_dim=dim, name="text_config"),
        tokenizer=lambda: read_tokenizer(folder),
        image=lambda: read_preprocessing(folder),
    )
    model = DualEncoder(parts["vision"], parts["text"])
    return Bundle(model, {}, parts["tokenizer"], parts["image"], parts["text"].context_length)


def _obstacles(bundle: Bundle) -> list[str]:
    model, problems = bundle.model, []
    if model.use_bias:
        problems.append("use_bias is True, but the logits of HF CLIP have no bias")
    problems += [
        f"{name}.output_dim is None, but HF CLIP always projects"
        for name, tower in towers(model).items()
        if tower.output_dim is None
    ]
    return problems + image_obstacles(bundle) + text_obstacles(bundle)


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    write_json(folder / "config.json", to_config(bundle, log_scale=float(tensors["logit_scale"])))
    write_tensors(folder, tensors)
    write_tokenizer(folder, bundle.tokenizer, context_length=bundle.context_length, processor="CLIPProcessor")
    write_preprocessing(folder, bundle.image, processor="CLIPProcessor")


def _load(source: Source) -> Network:
    network = load_pretrained("CLIPModel", source.folder)
    return Network(
        image=Tower(
            lambda pixels: network.get_image_features(pixels).pooler_output, network.vision_model.encoder.layers
        ),
        text=Tower(
            lambda ids, mask: network.get_text_features(ids, mask).pooler_output, network.text_model.encoder.layers
        ),
        logits=lambda pixels, ids, mask: network(ids, pixels, mask).logits_per_image,
        **hf_parts(source.folder),
    )


FORMAT = Format(
    name="HF CLIP",
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=_obstacles,
    write=_write,
    load=_load,
    ignore=("*.position_ids",),
)

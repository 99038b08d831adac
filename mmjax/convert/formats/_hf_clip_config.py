"""`CLIPConfig` and our towers: what the one can say of the other.

Reference: huggingface/transformers 5.23.0, `models/clip/configuration_clip.py` and `modeling_clip.py`.
"""

from collections.abc import Mapping
from typing import Any

from mmjax.convert.rules import ConversionError
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer

_ACTS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_IMPORTED_ACTS = {foreign: act for act, foreign in _ACTS.items()} | {"gelu_new": "gelu_tanh"}

# What HF CLIP takes for granted, in the fields of our towers.
_IMAGE = {
    "pool": "tok",
    "class_token": True,
    "num_registers": 0,
    "position": "learned",
    "pre_norm": True,
    "patch_bias": False,
    "proj_bias": False,
    "layer_scale": None,
}
_TEXT = {"causal": True, "proj_bias": False}

# Folders leave out what equals the defaults of `CLIPTextConfig` and `CLIPVisionConfig`.
_DEFAULTS: dict[str, Any] = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_TEXT_DEFAULTS = _DEFAULTS | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_VISION_DEFAULTS = _DEFAULTS | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}

# Folders of before `transformers` 4.31 name this end token whatever the tokenizer's is, and pool at the largest id.
_LEGACY_EOS_ID = 2


def obstacles(model: DualEncoder, *, tokenizer: Tokenizer, image: ImageSpec, context_length: int) -> list[str]:
    """Every reason why HF CLIP would compute something else than the model."""
    problems = []
    if model.use_bias:
        problems.append("use_bias is True, but HF CLIP's logits have no bias")
    towers = {"image": (model.image, VisionTransformer, _IMAGE), "text": (model.text, TextTransformer, _TEXT)}
    for name, (tower, kind, fixed) in towers.items():
        if not isinstance(tower, kind):
            problems.append(f"{name} is a {type(tower).__name__}, expected a {kind.__name__}")
            continue
        for field, value in fixed.items():
            if (found := getattr(tower, field)) != value:
                problems.append(f"{name}.{field} is {found!r}, HF CLIP has {value!r}")
        if tower.act not in _ACTS:
            problems.append(f"{name}.act is {tower.act!r}, expected one of {', '.join(map(repr, _ACTS))}")
        if tower.output_dim is None:
            problems.append(f"{name}.output_dim is None, but HF CLIP always projects")
    if isinstance(model.image, VisionTransformer):
        size = model.image.image_size
        if size not in (None, image.size, (image.size, image.size)):
            problems.append(f"image.image_size is {size}, but the pictures are prepared at {image.size} pixels")
    if isinstance(model.text, TextTransformer):
        problems += _text_obstacles(model.text, tokenizer, context_length)
    return problems


def _text_obstacles(text: TextTransformer, tokenizer: Tokenizer, context_length: int) -> list[str]:
    problems, eos_id = [], tokenizer.eos_id
    if text.pool not in ("argmax", "eos"):
        problems.append(f"text.pool is {text.pool!r}, but HF CLIP reads the end token ('argmax' or 'eos')")
    if text.pool == "argmax" and eos_id != tokenizer.vocab_size - 1:
        largest = tokenizer.vocab_size - 1
        problems.append(f"text.pool is 'argmax', but the end token {eos_id} is not the largest id, {largest}")
    if text.pool == "eos" and text.eos_id != eos_id:
        problems.append(f"text.eos_id is {text.eos_id}, but the tokenizer ends texts with {eos_id}")
    if eos_id == _LEGACY_EOS_ID:
        problems.append(f"the end token has id {eos_id}, which makes HF CLIP read the largest id instead")
    if tokenizer.vocab_size > text.vocab_size:
        problems.append(f"the tokenizer has {tokenizer.vocab_size} ids, but text.vocab_size is {text.vocab_size}")
    if context_length > text.context_length:
        problems.append(f"context_length is {context_length}, but text.context_length is {text.context_length}")
    return problems


def to_config(model: DualEncoder, *, tokenizer: Tokenizer, image_size: int, log_scale: float) -> dict[str, Any]:
    """The `CLIPConfig` of a model without obstacles."""
    image, text = model.image, model.text

    def shared(tower: Any) -> dict[str, Any]:
        return {
            "hidden_size": tower.width,
            "intermediate_size": int(tower.mlp_ratio * tower.width),
            "num_hidden_layers": tower.num_layers,
            "num_attention_heads": tower.num_heads,
            "hidden_act": _ACTS[tower.act],
            "layer_norm_eps": tower.ln_eps,
            "projection_dim": tower.output_dim,
        }

    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": image.output_dim,
        "logit_scale_init_value": log_scale,
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": image_size,
            "patch_size": image.patch_size,
            "num_channels": 3,
            **shared(image),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
            **shared(text),
        },
    }


def from_config(config: Mapping[str, Any]) -> DualEncoder:
    """The towers of a `CLIPConfig`.

    Raises:
      ConversionError: settings have no counterpart; all are listed.
    """
    # Where old folders have `text_config_dict`, `transformers` lets it win.
    vision = _VISION_DEFAULTS | (config.get("vision_config_dict") or config.get("vision_config") or {})
    text = _TEXT_DEFAULTS | (config.get("text_config_dict") or config.get("text_config") or {})
    problems = []
    if config.get("model_type") != "clip":
        problems.append(f"model_type is {config.get('model_type')!r}, expected 'clip'")
    for name, tower in {"vision_config": vision, "text_config": text}.items():
        if tower["hidden_act"] not in _IMPORTED_ACTS:
            problems.append(f"{name}.hidden_act is {tower['hidden_act']!r}, expected one of {list(_IMPORTED_ACTS)}")
    for field in ("image_size", "patch_size"):
        if not isinstance(vision[field], int):
            problems.append(f"vision_config.{field} is {vision[field]}, expected one number")
    if vision["num_channels"] != 3:
        problems.append(f"vision_config.num_channels is {vision['num_channels']}, expected 3")
    if not isinstance(text["eos_token_id"], int):
        problems.append(f"text_config.eos_token_id is {text['eos_token_id']}, expected one id")
    if problems:
        raise ConversionError("cannot take over config.json", problems)

    def shared(tower: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "width": tower["hidden_size"],
            "num_layers": tower["num_hidden_layers"],
            "num_heads": tower["num_attention_heads"],
            "output_dim": config.get("projection_dim", 512),
            "mlp_ratio": tower["intermediate_size"] / tower["hidden_size"],
            "act": _IMPORTED_ACTS[tower["hidden_act"]],
            "ln_eps": tower["layer_norm_eps"],
        }

    legacy = text["eos_token_id"] == _LEGACY_EOS_ID
    return DualEncoder(
        VisionTransformer(vision["patch_size"], image_size=vision["image_size"], **shared(vision)),
        TextTransformer(
            vocab_size=text["vocab_size"],
            context_length=text["max_position_embeddings"],
            pool="argmax" if legacy else "eos",
            eos_id=None if legacy else text["eos_token_id"],
            **shared(text),
        ),
    )

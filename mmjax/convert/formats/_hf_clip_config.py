"""The configs of HF CLIP's towers and our towers: what the one can say of the other.

Reference: huggingface/transformers 5.23.0, `models/clip/configuration_clip.py` and `modeling_clip.py`.
"""

from collections.abc import Mapping
from typing import Any, cast

from mmjax.convert.bundle import Bundle, picture_size
from mmjax.convert.errors import ConversionError
from mmjax.convert.hf_config import ACTS, tower_config, tower_fields, tower_problems
from mmjax.convert.obstacles import picture_obstacles, token_obstacles, tower_obstacles
from mmjax.models import TextTransformer, VisionTransformer

_NAME = "HF CLIP"

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
_TEXT = {"causal": True, "norm_position": "pre", "type_vocab": 0, "proj_bias": False}

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


def image_obstacles(bundle: Bundle) -> list[str]:
    """Every reason why HF CLIP's vision tower would compute something else than ours."""
    problems = tower_obstacles(bundle, "image", VisionTransformer, format=_NAME, fixed=_IMAGE, acts=ACTS)
    return problems + picture_obstacles(bundle, format=_NAME)


def text_obstacles(bundle: Bundle) -> list[str]:
    """Every reason why HF CLIP's text tower would compute something else than ours."""
    problems = tower_obstacles(bundle, "text", TextTransformer, format=_NAME, fixed=_TEXT, acts=ACTS)
    text, tokenizer = bundle.model.text, bundle.tokenizer
    if not isinstance(text, TextTransformer):
        return problems
    if text.pool not in ("argmax", "eos"):
        problems.append(f"text.pool is {text.pool!r}, but {_NAME} reads the end token ('argmax' or 'eos')")
    if tokenizer is not None:
        eos_id, largest = tokenizer.eos_id, tokenizer.vocab_size - 1
        if text.pool == "argmax" and eos_id != largest:
            problems.append(f"text.pool is 'argmax', but the end token {eos_id} is not the largest id, {largest}")
        if text.pool == "eos" and text.eos_id != eos_id:
            problems.append(f"text.eos_id is {text.eos_id}, but the tokenizer ends texts with {eos_id}")
        if eos_id == _LEGACY_EOS_ID:
            problems.append(f"the end token has id {eos_id}, which makes {_NAME} read the largest id instead")
    return problems + token_obstacles(bundle, format=_NAME)


def vision_config(bundle: Bundle) -> dict[str, Any]:
    """The `CLIPVisionConfig` of a bundle without obstacles."""
    image: Any = bundle.model.image
    sizes = {"image_size": picture_size(bundle), "patch_size": image.patch_size, "num_channels": 3}
    return {"model_type": "clip_vision_model", **sizes, **tower_config(image), "projection_dim": image.output_dim}


def text_config(bundle: Bundle) -> dict[str, Any]:
    """The `CLIPTextConfig` of a bundle without obstacles."""
    text, tokenizer = cast(Any, (bundle.model.text, bundle.tokenizer))
    return {
        "model_type": "clip_text_model",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        **tower_config(text),
        "projection_dim": text.output_dim,
    }


def vision_tower(config: Mapping[str, Any], *, output_dim: int | None, name: str = "config.json") -> VisionTransformer:
    """The tower of a `CLIPVisionConfig`, which `name` is called in messages.

    Raises:
      ConversionError: settings have no counterpart; all are listed.
    """
    config = _VISION_DEFAULTS | dict(config)
    if problems := tower_problems(name, config):
        raise ConversionError(f"cannot take over {name}", problems)
    fields = tower_fields(config)
    return VisionTransformer(config["patch_size"], output_dim=output_dim, image_size=config["image_size"], **fields)


def text_tower(config: Mapping[str, Any], *, output_dim: int | None, name: str = "config.json") -> TextTransformer:
    """The tower of a `CLIPTextConfig`, likewise."""
    config = _TEXT_DEFAULTS | dict(config)
    problems, eos_id = tower_problems(name, config), config["eos_token_id"]
    if not isinstance(eos_id, int):
        problems.append(f"{name}.eos_token_id is {eos_id}, expected one id")
    if problems:
        raise ConversionError(f"cannot take over {name}", problems)
    return TextTransformer(
        vocab_size=config["vocab_size"],
        context_length=config["max_position_embeddings"],
        output_dim=output_dim,
        pool="argmax" if eos_id == _LEGACY_EOS_ID else "eos",
        eos_id=None if eos_id == _LEGACY_EOS_ID else eos_id,
        **tower_fields(config),
    )

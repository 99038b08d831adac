"""The configs of HF SigLIP's towers and our towers: what the one can say of the other.

Reference: huggingface/transformers 5.23.0, `configuration_siglip.py` and `modeling_siglip.py` in `models/siglip`, and
their like in `models/siglip2`.
"""

from collections.abc import Mapping
from typing import Any, cast

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import ConversionError
from mmjax.convert.hf_config import ACTS, tower_config, tower_fields, tower_problems
from mmjax.convert.obstacles import padding_obstacles, picture_obstacles, token_obstacles, tower_obstacles
from mmjax.models import TextTransformer, VisionTransformer

# What SigLIP takes for granted, in the fields of our towers.
SIGLIP_IMAGE = {
    "pool": "map",
    "class_token": False,
    "num_registers": 0,
    "position": "learned",
    "pre_norm": False,
    "patch_bias": True,
    "layer_scale": None,
    "output_dim": None,
}
_TEXT = {
    "pool": "last",
    "causal": False,
    "attend_padding": True,
    "norm_position": "pre",
    "type_vocab": 0,
    "proj_bias": True,
}

# Folders leave out what equals the defaults of the config classes.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_TEXT_DEFAULTS = _DEFAULTS | {"vocab_size": 32000, "max_position_embeddings": 64, "projection_size": None}
_VISION_DEFAULTS = _DEFAULTS | {"num_channels": 3, "image_size": 224, "patch_size": 16, "vision_use_head": True}


def siglip_obstacles(bundle: Bundle, *, format: str) -> list[str]:
    """Every reason why a SigLIP model would compute something else than ours."""
    problems = tower_obstacles(bundle, "image", VisionTransformer, format=format, fixed=SIGLIP_IMAGE, acts=ACTS)
    problems += picture_obstacles(bundle, format=format)
    problems += tower_obstacles(bundle, "text", TextTransformer, format=format, fixed=_TEXT, acts=ACTS)
    text, tokenizer, length = bundle.model.text, bundle.tokenizer, bundle.context_length
    if not isinstance(text, TextTransformer):
        return problems
    if text.output_dim is None:
        problems.append(f"text.output_dim is None, but {format} always projects")
    problems += token_obstacles(bundle, format=format)
    if length is not None and length < text.context_length:
        problems.append(f"context_length is {length}, but {format} pads texts to all {text.context_length} positions")
    return problems + (padding_obstacles(tokenizer) if tokenizer is not None else [])


def siglip_config(bundle: Bundle, model_type: str, **pictures: int) -> dict[str, Any]:
    """The config of a bundle without obstacles.

    Args:
      bundle: the bundle.
      model_type: "siglip" or "siglip2".
      **pictures: what this type says of their size.
    """
    image, text, tokenizer = cast(Any, (bundle.model.image, bundle.model.text, bundle.tokenizer))
    text_config = {
        "model_type": f"{model_type}_text_model",
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.context_length,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
        **tower_config(text),
        "projection_size": text.output_dim,
    }
    vision_config = {
        "model_type": f"{model_type}_vision_model",
        "patch_size": image.patch_size,
        "num_channels": 3,
        **pictures,
        **tower_config(image),
        "vision_use_head": True,
    }
    return {
        "architectures": [f"{model_type.capitalize()}Model"],
        "model_type": model_type,
        "dtype": "float32",
        "text_config": text_config,
        "vision_config": vision_config,
    }


def vision_tower(config: Mapping[str, Any]) -> VisionTransformer:
    """The tower of a `SiglipVisionConfig`.

    Raises:
      ConversionError: settings have no counterpart; all are listed.
    """
    config = _VISION_DEFAULTS | dict(config)
    problems = tower_problems("vision_config", config)
    if not config["vision_use_head"]:
        problems.append("vision_config.vision_use_head is false: without the head pictures have no embedding")
    size, patch_size = config["image_size"], config["patch_size"]
    if not problems and (rest := size % patch_size):
        problems.append(
            f"vision_config.image_size {size} is not divisible by patch_size {patch_size}: SigLIP cuts off the last "
            f"{rest} rows and columns of a picture, which VisionTransformer does not"
        )
    if problems:
        raise ConversionError("cannot take over vision_config", problems)
    return VisionTransformer(patch_size, image_size=size, **tower_fields(config), **SIGLIP_IMAGE)


def text_tower(config: Mapping[str, Any]) -> TextTransformer:
    """The tower of a `SiglipTextConfig`, likewise."""
    config = _TEXT_DEFAULTS | dict(config)
    if problems := tower_problems("text_config", config):
        raise ConversionError("cannot take over text_config", problems)
    return TextTransformer(
        vocab_size=config["vocab_size"],
        context_length=config["max_position_embeddings"],
        output_dim=config["projection_size"] or config["hidden_size"],
        **tower_fields(config),
        **_TEXT,
    )

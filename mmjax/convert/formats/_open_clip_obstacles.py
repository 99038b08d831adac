"""What open_clip cannot express."""

from typing import Any, cast

from mmjax.convert.bundle import Bundle, picture_size
from mmjax.convert.formats._open_clip_config import FILTERS, IMAGE_POOLS, TEXT_POOLS, padding_counts
from mmjax.convert.formats._timm_names import siglip_architecture, siglip_fields
from mmjax.convert.obstacles import padding_obstacles, picture_obstacles, token_obstacles, tower_obstacles
from mmjax.data import Tokenizer
from mmjax.models import TextTransformer, VisionTransformer

_NAME = "open_clip"
_ACTS = ("gelu", "gelu_tanh", "quick_gelu")
_IMAGE = {"class_token": True, "num_registers": 0, "position": "learned", "patch_bias": False, "proj_bias": False}
_TEXT = {"norm_position": "pre", "type_vocab": 0}


def open_clip_obstacles(bundle: Bundle) -> list[str]:
    """Every reason why open_clip would compute something else than a bundle."""
    image, text = cast(tuple[Any, Any], (bundle.model.image, bundle.model.text))
    problems = _image_obstacles(bundle) + picture_obstacles(bundle, format=_NAME)
    if bundle.image is not None and bundle.image.resize not in FILTERS:
        problems.append(f"pictures are resized by {bundle.image.resize!r}, {_NAME} has {', '.join(map(repr, FILTERS))}")
    if bundle.image is not None and bundle.image.scaled_size is not None:
        scaled = bundle.image.scaled_size
        problems.append(f"pictures are cut out of {scaled} pixels, but {_NAME} cuts them out of their own size")
    problems += tower_obstacles(bundle, "text", TextTransformer, format=_NAME, fixed=_TEXT, acts=_ACTS)
    if isinstance(text, TextTransformer):
        problems += _text_obstacles(text, bundle.tokenizer)
        problems += token_obstacles(bundle, format=_NAME)
        length = bundle.context_length
        if length is not None and length < text.context_length:
            problems.append(
                f"context_length is {length}, but {_NAME} pads texts to all {text.context_length} positions"
            )
        native = isinstance(image, VisionTransformer) and image.class_token
        if native and (image.act == "quick_gelu") != (text.act == "quick_gelu"):
            problems.append(f"image.act is {image.act!r} and text.act {text.act!r}, but quick_gelu is set for both")
    return problems


def _image_obstacles(bundle: Bundle) -> list[str]:
    image = bundle.model.image
    fixed: dict[str, Any] = _IMAGE
    if isinstance(image, VisionTransformer) and not image.class_token:
        architecture = siglip_architecture(image, picture_size(bundle))
        if architecture is None:
            published = "in SigLIP towers of the published sizes, of which this is none"
            return [f"image.class_token is False, {_NAME} has True, except {published}"]
        fixed = siglip_fields(architecture)
    problems = tower_obstacles(bundle, "image", VisionTransformer, format=_NAME, fixed=fixed, acts=_ACTS)
    if isinstance(image, VisionTransformer) and image.class_token:
        if image.pool not in IMAGE_POOLS:
            problems.append(f"image.pool is {image.pool!r}, {_NAME} has {', '.join(map(repr, IMAGE_POOLS))}")
        if image.output_dim is None:
            problems.append(f"image.output_dim is None, but {_NAME} always projects")
    return problems


def _text_obstacles(text: TextTransformer, tokenizer: Tokenizer | None) -> list[str]:
    problems = []
    if text.pool not in TEXT_POOLS:
        problems.append(f"text.pool is {text.pool!r}, {_NAME} has {', '.join(map(repr, TEXT_POOLS))}")
    if padding_counts(causal=text.causal, pool=text.pool) and not text.attend_padding:
        problems.append(
            f"text.attend_padding is False, but {_NAME} masks no padding, which counts with causal={text.causal} and "
            f"pool={text.pool!r}"
        )
    if tokenizer is None:
        return problems
    if text.pool == "argmax" and tokenizer.pad_id > tokenizer.eos_id:
        problems.append(f"text.pool is 'argmax', but padding, {tokenizer.pad_id}, is above the end, {tokenizer.eos_id}")
    if text.pool == "eos" and text.eos_id != tokenizer.eos_id:
        problems.append(f"text.eos_id is {text.eos_id}, but the tokenizer ends texts with {tokenizer.eos_id}")
    return problems + (padding_obstacles(tokenizer) if text.attend_padding else [])

"""Dual encoders by short name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from mmjax.models.dual_encoder import DualEncoder
from mmjax.models.text import TextTransformer
from mmjax.models.vision import VisionTransformer
from mmjax.paths import suggestion


class Preset(NamedTuple):
    """Settings of a dual encoder.

    Attributes:
      image: fields of `VisionTransformer`.
      text: fields of `TextTransformer`.
      init_scale, use_bias, init_bias: see `DualEncoder`.
    """

    image: Mapping[str, Any]
    text: Mapping[str, Any]
    init_scale: float = 1 / 0.07
    use_bias: bool = False
    init_bias: float = -10.0


def _tower(width: int, num_layers: int, num_heads: int, output_dim: int | None, **settings: Any) -> dict[str, Any]:
    return {"width": width, "num_layers": num_layers, "num_heads": num_heads, "output_dim": output_dim, **settings}


_CLIP_TEXT = {"vocab_size": 49408, "context_length": 77}
_SMALL_TEXT = {"vocab_size": 1024, "context_length": 32}
_SIGLIP = {"act": "gelu_tanh", "ln_eps": 1e-6}
_SIGLIP_IMAGE = _SIGLIP | {"pool": "map", "class_token": False, "pre_norm": False, "patch_bias": True}
_SIGLIP_TEXT = _SIGLIP | {"pool": "last", "causal": False, "proj_bias": True, "vocab_size": 32000, "context_length": 64}


def _clip_base(patch_size: int) -> Preset:
    image = _tower(768, 12, 12, 512, patch_size=patch_size, image_size=224)
    return Preset(image, _tower(512, 12, 8, 512, **_CLIP_TEXT))


def _clip_large(image_size: int) -> Preset:
    image = _tower(1024, 24, 16, 768, patch_size=14, image_size=image_size)
    return Preset(image, _tower(768, 12, 12, 768, **_CLIP_TEXT))


def _small(patch_size: int, width: int, layers: int, text_layers: int, heads: int) -> Preset:
    image = _tower(width, layers, heads, width, patch_size=patch_size, image_size=32)
    return Preset(image, _tower(width, text_layers, heads, width, **_SMALL_TEXT))


# CLIP's towers have OpenAI's sizes and, as LAION's weights, the exact GELU; OpenAI's weights need act "quick_gelu".
# The small ones train on a CPU; their vocabulary and image size are meant to be overridden.
PRESETS: Mapping[str, Preset] = {
    "nano/8": _small(8, width=64, layers=2, text_layers=2, heads=2),
    "tiny/4": _small(4, width=128, layers=4, text_layers=3, heads=4),
    "tiny/8": _small(8, width=128, layers=4, text_layers=3, heads=4),
    "small/4": _small(4, width=256, layers=6, text_layers=4, heads=4),
    "small/8": _small(8, width=256, layers=6, text_layers=4, heads=4),
    "ViT-B/32": _clip_base(32),
    "ViT-B/16": _clip_base(16),
    "ViT-L/14": _clip_large(224),
    "ViT-L/14@336": _clip_large(336),
    "SigLIP-B/16": Preset(
        _tower(768, 12, 12, None, patch_size=16, image_size=224, **_SIGLIP_IMAGE),
        _tower(768, 12, 12, 768, **_SIGLIP_TEXT),
        init_scale=10.0,
        use_bias=True,
    ),
}


def build_dual_encoder(
    preset: str,
    *,
    image: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    init_scale: float | None = None,
    use_bias: bool | None = None,
    init_bias: float | None = None,
    dtype: str | None = None,
    remat: str | None = None,
    scan: bool | None = None,
    attention: str | None = None,
) -> DualEncoder:
    """The dual encoder of a preset, with overrides.

    Args:
      preset: a name in `PRESETS`.
      image: fields of `VisionTransformer` that differ from the preset.
      text: fields of `TextTransformer` that differ from the preset; `vocab_size` is the tokenizer's.
      init_scale, use_bias, init_bias: fields of `DualEncoder`; None = the preset's.
      dtype, remat, scan, attention: fields of both towers, where `image` and `text` do not say otherwise. With dtype
        "bfloat16" the towers compute in it; parameters, norms, softmaxes and the loss stay float32.

    Returns:
      The module.

    Raises:
      ValueError: no such preset, field or dtype, or the towers' embeddings differ in width.

    >>> model = build_dual_encoder("tiny/8", text={"vocab_size": 300, "remat": "dots"}, dtype="bfloat16", remat="full")
    >>> model.image.remat, model.text.remat, model.text.vocab_size
    ('full', 'dots', 300)
    """
    if preset not in PRESETS:
        raise ValueError(f"build_dual_encoder: no preset {preset!r}; {suggestion(preset, PRESETS)}")
    base = PRESETS[preset]
    both = {"dtype": dtype, "remat": remat, "scan": scan, "attention": attention}
    both = {name: value for name, value in both.items() if value is not None}
    towers = {
        "image": VisionTransformer(**_override("image", VisionTransformer, {**base.image, **both}, image or {})),
        "text": TextTransformer(**_override("text", TextTransformer, {**base.text, **both}, text or {})),
    }
    widths = {name: tower.width if tower.output_dim is None else tower.output_dim for name, tower in towers.items()}
    if widths["image"] != widths["text"]:
        raise ValueError(
            f"build_dual_encoder: image embeddings have width {widths['image']}, text embeddings {widths['text']}; "
            "give both towers one output_dim"
        )
    return DualEncoder(
        **towers,
        init_scale=base.init_scale if init_scale is None else init_scale,
        use_bias=base.use_bias if use_bias is None else use_bias,
        init_bias=base.init_bias if init_bias is None else init_bias,
    )


def _override(tower: str, module: type, base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
    for name in changes:
        if name not in fields:
            raise ValueError(f"build_dual_encoder: {tower} has no setting {name!r}; {suggestion(name, fields)}")
    settings = {**base, **changes}
    for name in {"dtype", "param_dtype"} & settings.keys():
        settings[name] = _dtype(tower, name, settings[name])
    return settings


def _dtype(tower: str, name: str, value: Any) -> jnp.dtype | None:
    """A floating dtype by its name, as configs have it."""
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError:
        dtype = jnp.dtype(bool)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"build_dual_encoder: {tower}.{name} is {value!r}, expected a floating dtype such as 'bfloat16'"
        )
    return dtype

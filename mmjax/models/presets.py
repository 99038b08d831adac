"""Settings of dual encoders by short name."""

from collections.abc import Mapping
from typing import Any, NamedTuple


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
_SIGLIP_TEXT = _SIGLIP | {
    "pool": "last",
    "causal": False,
    "attend_padding": True,
    "proj_bias": True,
    "vocab_size": 32000,
    "context_length": 64,
}


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

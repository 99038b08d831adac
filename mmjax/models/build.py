"""Dual encoders from settings, and settings from dual encoders."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmjax.models.dual_encoder import DualEncoder
from mmjax.models.presets import PRESETS, Preset
from mmjax.models.projector import MlpProjector
from mmjax.models.text import TextTransformer
from mmjax.models.vision import VisionTransformer
from mmjax.paths import suggestion

_PARTS: Mapping[str, type[nn.Module]] = {
    "image": VisionTransformer,
    "text": TextTransformer,
    "image_head": MlpProjector,
    "text_head": MlpProjector,
}


def build_dual_encoder(
    preset: str | None = None,
    *,
    image: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    image_head: Mapping[str, Any] | None = None,
    text_head: Mapping[str, Any] | None = None,
    init_scale: float | None = None,
    use_bias: bool | None = None,
    init_bias: float | None = None,
    dtype: str | None = None,
    remat: str | None = None,
    scan: bool | None = None,
    attention: str | None = None,
) -> DualEncoder:
    """The dual encoder of a preset with overrides, or of settings alone.

    Args:
      preset: a name in `PRESETS`; None = `image` and `text` say all, and one that is None is absent.
      image: fields of `VisionTransformer`, those that differ from the preset.
      text: fields of `TextTransformer`, those that differ from the preset; `vocab_size` is the tokenizer's.
      image_head, text_head: fields of the `MlpProjector` on top of a tower; None = no head.
      init_scale, use_bias, init_bias: fields of `DualEncoder`; None = the preset's.
      dtype, remat, scan, attention: fields of both towers, where `image` and `text` do not say otherwise. With dtype
        "bfloat16" towers and heads compute in it; parameters, norms, softmaxes and the loss stay float32.

    Returns:
      The module.

    Raises:
      ValueError: no such preset, field or dtype, a field without value, or embeddings that differ in width.

    >>> model = build_dual_encoder("tiny/8", text={"vocab_size": 300, "remat": "dots"}, dtype="bfloat16", remat="full")
    >>> model.image.remat, model.text.remat, model.text.vocab_size
    ('full', 'dots', 300)
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"build_dual_encoder: no preset {preset!r}; {suggestion(preset, PRESETS)}")
    base = Preset({}, {}) if preset is None else PRESETS[preset]
    both = {"dtype": dtype, "remat": remat, "scan": scan, "attention": attention}
    asked = {"image": image, "text": text, "image_head": image_head, "text_head": text_head}
    parts: dict[str, Any] = {}
    for name, module in _PARTS.items():
        given = {**getattr(base, name, {}), **(asked[name] or {})}
        if not given:
            continue
        shared = {key: value for key, value in both.items() if value is not None and key in _fields(module)}
        parts[name] = _build(name, module, {**shared, **given})
    _check_widths(parts)
    return DualEncoder(
        **parts,
        init_scale=base.init_scale if init_scale is None else init_scale,
        use_bias=base.use_bias if use_bias is None else use_bias,
        init_bias=base.init_bias if init_bias is None else init_bias,
    )


def describe_model(model: DualEncoder) -> dict[str, Any]:
    """The settings of a dual encoder as JSON has them, the inverse of `build_dual_encoder(**settings)`.

    Every field is there, defaults too, so that the description outlives them.

    Args:
      model: of `VisionTransformer`, `TextTransformer` and `MlpProjector`.

    Raises:
      ValueError: a part is of another class.

    >>> model = build_dual_encoder("nano/8", dtype="bfloat16", image_head={"features": 64})
    >>> settings = describe_model(model)
    >>> settings["image_head"]["features"], settings["text"]["dtype"], build_dual_encoder(**settings) == model
    (64, 'bfloat16', True)
    """
    settings: dict[str, Any] = {}
    for name, module in _PARTS.items():
        part = getattr(model, name)
        if part is None:
            continue
        if type(part) is not module:
            raise ValueError(f"describe_model: {name} is a {type(part).__name__}, expected a {module.__name__}")
        settings[name] = {field: _plain(field, getattr(part, field)) for field in _fields(module)}
    return settings | {name: getattr(model, name) for name in ("init_scale", "use_bias", "init_bias")}


def _fields(module: type[nn.Module]) -> list[str]:
    return [field.name for field in dataclasses.fields(module) if field.name not in ("parent", "name")]


def _build(name: str, module: type[nn.Module], settings: Mapping[str, Any]) -> nn.Module:
    for field in settings:
        if field not in _fields(module):
            raise ValueError(
                f"build_dual_encoder: {name} has no setting {field!r}; {suggestion(field, _fields(module))}"
            )
    required = [f.name for f in dataclasses.fields(module) if f.default is f.default_factory is dataclasses.MISSING]
    missing = [field for field in required if field not in settings]
    if missing:
        raise ValueError(f"build_dual_encoder: {name} lacks {', '.join(missing)}; set them, or name a preset")
    return module(**{field: _value(f"{name}.{field}", value) for field, value in settings.items()})


def _check_widths(parts: Mapping[str, Any]) -> None:
    for name in ("image", "text"):
        if name not in parts and f"{name}_head" in parts:
            raise ValueError(f"build_dual_encoder: {name}_head is set, but there is no {name} tower under it")
    if "image" not in parts and "text" not in parts:
        raise ValueError("build_dual_encoder: neither a preset nor a tower is given; set preset, image or text")
    widths = {name: _width(parts[name], parts.get(f"{name}_head")) for name in ("image", "text") if name in parts}
    if len(set(widths.values())) > 1:
        raise ValueError(
            f"build_dual_encoder: image embeddings have width {widths['image']}, text embeddings {widths['text']}; "
            "give both towers one output_dim, or heads of one width"
        )


def _width(tower: Any, head: Any) -> int:
    if head is not None:
        return head.features
    return tower.width if tower.output_dim is None else tower.output_dim


def _value(name: str, value: Any) -> Any:
    """A value as modules have it, of one as configs and JSON have it."""
    if name.endswith((".dtype", ".param_dtype")):
        return _dtype(name, value)
    return tuple(value) if isinstance(value, list) else value


def _plain(field: str, value: Any) -> Any:
    """The inverse of `_value`."""
    if field in ("dtype", "param_dtype") and value is not None:
        return jnp.dtype(value).name
    return list(value) if isinstance(value, tuple) else value


def _dtype(name: str, value: Any) -> jnp.dtype | None:
    """A floating dtype by its name, as configs have it."""
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError:
        dtype = jnp.dtype(bool)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"build_dual_encoder: {name} is {value!r}, expected a floating dtype such as 'bfloat16'")
    return dtype

"""open_clip's config of a model and our towers: the one from the other.

Reference: Ilharco et al., "OpenCLIP", 2021; mlfoundations/open_clip 3.3.0, `model.py`, `transformer.py` and
`transform.py`.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from mmjax.convert.bundle import Bundle, picture_size
from mmjax.convert.errors import ConversionError, read_all
from mmjax.convert.formats._timm_names import siglip_architecture
from mmjax.convert.formats._timm_vit_config import timm_tower
from mmjax.convert.formats._vit_shapes import uncovered_pixels, width_ratio
from mmjax.data import ImageSpec
from mmjax.data.image_spec import CLIP_MEAN, CLIP_STD
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer

TRUNK = "visual.trunk."
IMAGE_POOLS = ("tok", "avg")
TEXT_POOLS = ("argmax", "eos", "first", "last")
FILTERS = ("bicubic", "bilinear")

# What configs leave out, and what has no counterpart when it is set.
_VISION: dict[str, Any] = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
    "ls_init_value": None,
    "no_ln_pre": False,
    "pool_type": "tok",
    "timm_pool": "avg",
    "timm_proj": "linear",
}
_TEXT: dict[str, Any] = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "eos_id": 2,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
}
_PREPROCESS: dict[str, Any] = {
    "mean": CLIP_MEAN,
    "std": CLIP_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_BLOCK = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "output_tokens")
_VISION_FOREIGN = ("attentional_pool", *_BLOCK)
_TEXT_FOREIGN = ("hf_model_name", "embed_cls", "ls_init_value", *_BLOCK)
_FITS = {"shortest": "crop", "squash": "squash"}


def open_clip_model(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> DualEncoder:
    """The model of a `model_cfg`; of the tensors, those of a tower of timm's count.

    Raises:
      ConversionError: settings have no counterpart; all are listed.
    """
    if missing := [f"no {name}" for name in ("embed_dim", "vision_cfg", "text_cfg") if name not in config]:
        raise ConversionError("cannot take over model_cfg", missing)
    vision, text = (_filled(_VISION, config["vision_cfg"]), _filled(_TEXT, config["text_cfg"]))
    quick, dim, bias = bool(config.get("quick_gelu")), config["embed_dim"], config.get("init_logit_bias")
    timm = vision.get("timm_model_name")
    towers = read_all(
        "cannot take over model_cfg",
        image=lambda: _timm_image(vision, tensors) if timm else _image(vision, quick=quick, output_dim=dim),
        text=lambda: _text(text, quick=quick, output_dim=dim),
    )
    return DualEncoder(**towers, use_bias=bias is not None, init_bias=-10.0 if bias is None else float(bias))


def open_clip_preprocessing(config: Mapping[str, Any], *, size: int) -> ImageSpec:
    """The preprocessing of a `preprocess_cfg`, at the size of the model.

    Raises:
      ConversionError: it is none that `ImageSpec` describes; all reasons are listed.
    """
    found = _filled(_PREPROCESS, config)
    problems = [
        f"preprocess_cfg.{field} is {found[field]!r}, expected one of {', '.join(map(repr, known))}"
        for field, known in (("interpolation", FILTERS), ("resize_mode", _FITS))
        if found[field] not in known
    ]
    if problems:
        raise ConversionError("cannot take over preprocess_cfg", problems)
    mean, std = (value if isinstance(value := found[name], list | tuple) else [value] * 3 for name in ("mean", "std"))
    return ImageSpec(size, tuple(mean), tuple(std), found["interpolation"], _FITS[found["resize_mode"]])


def open_clip_config(bundle: Bundle) -> dict[str, Any]:
    """The content of `open_clip_config.json` for a bundle without obstacles; the tokenizer is that of the folder."""
    model, spec = cast(Any, (bundle.model, bundle.image))
    image, text, size = model.image, model.text, picture_size(bundle)
    native = image.class_token
    if native:
        vision_cfg = {
            "image_size": size,
            "patch_size": image.patch_size,
            "head_width": image.width // image.num_heads,
            "no_ln_pre": not image.pre_norm,
            "ls_init_value": image.layer_scale,
            "pool_type": image.pool,
            **_tower_cfg(image),
        }
    else:
        architecture = siglip_architecture(image, size)
        vision_cfg = {"image_size": size, "timm_model_name": architecture, "timm_pool": "map", "timm_proj": "none"}
    text_cfg = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "heads": text.num_heads,
        "no_causal_mask": not text.causal,
        "pool_type": text.pool,
        **({"eos_id": text.eos_id} if text.pool == "eos" else {}),
        **({"proj_type": "none"} if text.output_dim is None else {"proj_bias": text.proj_bias}),
        **_tower_cfg(text),
        "hf_tokenizer_name": "./",  # Any name: from a local folder open_clip takes the tokenizer that is in it.
    }
    model_cfg = {
        "embed_dim": image.output_dim or image.width,
        **({"quick_gelu": True} if text.act == "quick_gelu" else {}),
        **({"init_logit_bias": model.init_bias} if model.use_bias else {}),
        **({} if native else {"custom_text": True}),
        "vision_cfg": vision_cfg,
        "text_cfg": text_cfg,
    }
    resize_mode = next(theirs for theirs, ours in _FITS.items() if ours == spec.fit)
    preprocess_cfg = {"mean": list(spec.mean), "std": list(spec.std)}
    preprocess_cfg |= {"interpolation": spec.resize, "resize_mode": resize_mode}
    return {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}


def _image(config: Mapping[str, Any], *, quick: bool, output_dim: int) -> VisionTransformer:
    """The tower that is open_clip's own."""
    problems = _foreign("vision_cfg", config, _VISION_FOREIGN)
    sizes = {name: config[name] for name in ("layers", "image_size", "patch_size")}
    oblong = [
        f"vision_cfg.{name} is {size}, expected one number" for name, size in sizes.items() if type(size) is not int
    ]
    problems += oblong or uncovered_pixels(config["image_size"], config["patch_size"])
    pool = config["pool_type"]
    if pool not in IMAGE_POOLS:
        problems.append(f"vision_cfg.pool_type is {pool!r}, expected one of {', '.join(map(repr, IMAGE_POOLS))}")
    elif pool == "avg" and config.get("final_ln_after_pool"):
        problems.append("vision_cfg.final_ln_after_pool is true, but the last norm of VisionTransformer comes before")
    if problems:
        raise ConversionError("cannot take over vision_cfg", problems)
    return VisionTransformer(
        config["patch_size"],
        num_heads=config["width"] // config["head_width"],
        output_dim=output_dim,
        pool=pool,
        image_size=config["image_size"],
        pre_norm=not config["no_ln_pre"],
        layer_scale=config["ls_init_value"],
        **_tower_fields(config, quick=quick),
    )


def _timm_image(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> VisionTransformer:
    """The tower that is timm's; `quick_gelu` does not change its activation."""
    if config["timm_proj"] != "none":
        problem = f"vision_cfg.timm_proj is {config['timm_proj']!r}, expected 'none', as SigLIP has it"
        raise ConversionError("cannot take over vision_cfg", [problem])
    trunk = {name.removeprefix(TRUNK): x for name, x in tensors.items() if name.startswith(TRUNK)}
    return timm_tower(
        config["timm_model_name"],
        trunk,
        image_size=config["image_size"],
        num_classes=0,
        arguments={"global_pool": config["timm_pool"]},
    )


def _text(config: Mapping[str, Any], *, quick: bool, output_dim: int) -> TextTransformer:
    problems, pool = _foreign("text_cfg", config, _TEXT_FOREIGN), config["pool_type"]
    if pool not in TEXT_POOLS:
        problems.append(f"text_cfg.pool_type is {pool!r}, expected one of {', '.join(map(repr, TEXT_POOLS))}")
    if problems:
        raise ConversionError("cannot take over text_cfg", problems)
    projected, causal = config["proj_type"] != "none", not config["no_causal_mask"]
    return TextTransformer(
        vocab_size=config["vocab_size"],
        context_length=config["context_length"],
        num_heads=config["heads"],
        output_dim=output_dim if projected else None,
        pool=pool,
        causal=causal,
        attend_padding=padding_counts(causal=causal, pool=pool),
        eos_id=config["eos_id"] if pool == "eos" else None,
        proj_bias=projected and config["proj_bias"],
        **_tower_fields(config, quick=quick),
    )


def padding_counts(*, causal: bool, pool: str) -> bool:
    """Whether padding changes an embedding: open_clip masks none, and a causal tower sees none before the text ends."""
    return not causal or pool == "last"


def _tower_fields(config: Mapping[str, Any], *, quick: bool) -> dict[str, Any]:
    """What both towers have; `int(width * mlp_ratio)` is the hidden width."""
    tanh = (config.get("act_kwargs") or {}).get("approximate") == "tanh"
    return {
        "width": config["width"],
        "num_layers": config["layers"],
        "mlp_ratio": int(config["width"] * config["mlp_ratio"]) / config["width"],
        "act": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu",
        "ln_eps": (config.get("norm_kwargs") or {}).get("eps", 1e-5),
    }


def _tower_cfg(tower: Any) -> dict[str, Any]:
    """The inverse of `_tower_fields`."""
    return {
        "width": tower.width,
        "layers": tower.num_layers,
        "mlp_ratio": width_ratio(round(tower.mlp_ratio * tower.width), tower.width),
        **({"act_kwargs": {"approximate": "tanh"}} if tower.act == "gelu_tanh" else {}),
        **({"norm_kwargs": {"eps": tower.ln_eps}} if tower.ln_eps != 1e-5 else {}),
    }


def _foreign(name: str, config: Mapping[str, Any], fields: tuple[str, ...]) -> list[str]:
    return [f"{name}.{field} is {config[field]!r}, which has no counterpart" for field in fields if config.get(field)]


def _filled(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return {**defaults, **{name: value for name, value in config.items() if value is not None}}

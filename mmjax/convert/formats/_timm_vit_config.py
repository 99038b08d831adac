"""timm's config of a ViT and our tower: what the one can say of the other.

A config names an architecture, `model_args` that replace its settings, and `pretrained_cfg` with the preprocessing.
Most settings show in the tensors, the others in the name, unless `model_args` has them.

Reference: Wightman, "PyTorch Image Models", 2019; huggingface/pytorch-image-models 1.0.31,
`timm/models/vision_transformer.py`, `_hub.py`, `timm/data/config.py`.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from mmjax.convert.bundle import Bundle, picture_size
from mmjax.convert.errors import ConversionError
from mmjax.convert.formats._timm_names import is_plain, published_fields, published_heads
from mmjax.convert.formats._vit_shapes import count_layers, missing_tensors, uncovered_pixels, width_ratio
from mmjax.convert.obstacles import picture_obstacles, tower_obstacles
from mmjax.data import ImageSpec
from mmjax.data.images import FILTERS
from mmjax.models import VisionTransformer

_NAME = "timm ViT"

_POOLS = {"token": "tok", "avg": "avg", "map": "map"}
_ACTS = ("gelu", "gelu_tanh", "quick_gelu")
# Arguments that change the computation and leave no trace in the tensors.
_FOREIGN_ARGS = (
    "attn_layer",
    "block_fn",
    "embed_layer",
    "embed_norm_layer",
    "mlp_layer",
    "norm_layer",
    "pool_include_prefix",
)
_NEEDED = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight")
# What timm assumes where a config says nothing.
_PRETRAINED: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
_FITS = {"center": "crop", "squash": "squash"}
# Architectures by the epsilon of their norms.
_ARCHITECTURES = {1e-5: "vit_base_patch16_clip_224", 1e-6: "vit_base_patch16_224"}


def pretrained_cfg(config: Mapping[str, Any]) -> dict[str, Any]:
    """The section `pretrained_cfg`, which old configs do not set apart, with what timm assumes where it is silent."""
    found = config.get("pretrained_cfg") or config
    return _PRETRAINED | {name: value for name, value in found.items() if value is not None}


def picture_side(config: Mapping[str, Any]) -> int:
    """The side of the pictures that the tower is made for.

    Raises:
      ConversionError: they are oblong, or not of three channels.
    """
    channels, *sides = pretrained_cfg(config)["input_size"]
    sides = (config.get("model_args") or {}).get("img_size") or sides
    height, width = (sides, sides) if isinstance(sides, int) else sides
    if (channels, height) != (3, width):
        problem = f"pictures are {channels} x {height} x {width}, expected three channels and a square"
        raise ConversionError("cannot take over config.json", [problem])
    return height


def timm_preprocessing(config: Mapping[str, Any]) -> ImageSpec:
    """The preprocessing of a config.

    Raises:
      ConversionError: it is none that `ImageSpec` describes; all reasons are listed.
    """
    found, problems = pretrained_cfg(config), []
    size = found["input_size"][-1]
    scaled = math.floor(size / found["crop_pct"])
    if scaled < size:
        problems.append(f"crop_pct is {found['crop_pct']}, expected at most 1, as pictures are not padded")
    for field, known in (("interpolation", FILTERS), ("crop_mode", _FITS)):
        if found[field] not in known:
            problems.append(f"{field} is {found[field]!r}, expected one of {', '.join(map(repr, known))}")
    if problems:
        raise ConversionError("cannot take over the preprocessing of config.json", problems)
    return ImageSpec(
        size,
        tuple(found["mean"]),
        tuple(found["std"]),
        resize=found["interpolation"],
        fit=_FITS[found["crop_mode"]],
        scaled_size=None if scaled == size else scaled,
    )


def timm_tower(
    architecture: str,
    tensors: Mapping[str, np.ndarray],
    *,
    image_size: int,
    num_classes: int | None = None,
    arguments: Mapping[str, Any],
) -> VisionTransformer:
    """The tower of an architecture and its tensors; a head without bias, or with one of zeros, has none.

    Args:
      architecture: timm's name of it.
      tensors: of the checkpoint.
      image_size: side of its pictures.
      num_classes: width of the head, 0 = the head is left out; None = as in the tensors.
      arguments: settings that replace those of the architecture.

    Raises:
      ConversionError: tensors are missing, or settings have no counterpart; all reasons are listed.
    """
    problems = missing_tensors(tensors, _NEEDED)
    if not is_plain(architecture):
        problems.append(f"architecture {architecture!r} is not known to be a plain ViT such as 'vit_base_patch16_224'")
    problems += [
        f"model_args.{name} is {arguments[name]!r}, which has no counterpart"
        for name in _FOREIGN_ARGS
        if arguments.get(name)
    ]
    fields, pool = published_fields(architecture), arguments.get("global_pool")
    act = arguments.get("act_layer") or fields["act"]
    pool = _pool(architecture, tensors) if pool is None else pool
    if act not in _ACTS:
        problems.append(f"model_args.act_layer is {act!r}, expected one of {', '.join(map(repr, _ACTS))}")
    if pool not in _POOLS:
        problems.append(f"global_pool is {pool!r}, expected one of {', '.join(map(repr, _POOLS))}")
    elif pool != "token" and "fc_norm.weight" in tensors:
        problems.append(f"fc_norm comes after global_pool {pool!r}, but the last norm of VisionTransformer before it")
    if problems:
        raise ConversionError(f"cannot take over {architecture}", problems)
    width, _, _, patch_size = tensors["patch_embed.proj.weight"].shape
    problems += uncovered_pixels(image_size, patch_size)
    num_heads = arguments.get("num_heads") or published_heads(architecture, width)
    if not num_heads or width % num_heads:
        problems.append(f"the number of heads of width {width} is not known; give model_args.num_heads in config.json")
    if problems:
        raise ConversionError(f"cannot take over {architecture}", problems)
    widened, narrowed = (tensors[name].shape for name in _NEEDED[2:])
    head, bias = tensors.get("head.weight"), tensors.get("head.bias")
    output_dim = len(head) if num_classes is None and head is not None else num_classes or None
    return VisionTransformer(
        patch_size,
        width=width,
        num_layers=count_layers(tensors, "blocks"),
        num_heads=num_heads,
        output_dim=output_dim,
        mlp_ratio=narrowed[1] / width,
        pool=_POOLS[pool],
        act="swiglu" if widened[0] == 2 * narrowed[1] else act,
        class_token="cls_token" in tensors,
        num_registers=tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        image_size=image_size,
        pre_norm="norm_pre.weight" in tensors,
        patch_bias="patch_embed.proj.bias" in tensors,
        proj_bias=output_dim is not None and bias is not None and bool(np.any(bias)),
        layer_scale=(arguments.get("init_values") or 1e-5) if "blocks.0.ls1.gamma" in tensors else None,
        ln_eps=fields["ln_eps"],
    )


def timm_config(bundle: Bundle, *, no_embed_class: bool) -> dict[str, Any]:
    """The config of a bundle without obstacles: an architecture of its kind, and arguments for all that it has."""
    tower, spec = cast(Any, (bundle.model.image, bundle.image))
    size, hidden = picture_size(bundle), round(tower.mlp_ratio * tower.width)
    pool = next(theirs for theirs, ours in _POOLS.items() if ours == tower.pool)
    gated = tower.act == "swiglu"
    arguments = {
        "img_size": size,
        "patch_size": tower.patch_size,
        "embed_dim": tower.width,
        "depth": tower.num_layers,
        "num_heads": tower.num_heads,
        "mlp_ratio": width_ratio(2 * hidden if gated else hidden, tower.width),
        "init_values": 1e-5 if tower.layer_scale == 0 else tower.layer_scale,  # 0 would be none, and loading sets it.
        "class_token": tower.class_token,
        "reg_tokens": tower.num_registers,
        "no_embed_class": no_embed_class,
        "pre_norm": tower.pre_norm,
        "global_pool": pool,
        "fc_norm": False,
    }
    # Epsilon and the gated MLP are no arguments that a config can give.
    architecture = "vit_giant_patch14_dinov2" if gated else _ARCHITECTURES[tower.ln_eps]
    if not gated:
        arguments["act_layer"] = tower.act
    scaled = spec.scaled_size or size
    return {
        "architecture": architecture,
        "num_classes": tower.output_dim or 0,
        "num_features": tower.width,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": spec.resize,
            # timm rounds size / crop_pct down.
            "crop_pct": 1.0 if scaled == size else size / (scaled + 0.5),
            "crop_mode": next(theirs for theirs, ours in _FITS.items() if ours == spec.fit),
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": tower.output_dim or 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def timm_obstacles(bundle: Bundle) -> list[str]:
    """Every reason why timm's ViT would compute something else than our tower."""
    acts = (*_ACTS, "swiglu")
    problems = tower_obstacles(
        bundle, "image", VisionTransformer, format=_NAME, fixed={"position": "learned"}, acts=acts
    )
    tower: Any = bundle.model.image
    if not isinstance(tower, VisionTransformer):
        return problems
    if tower.pool not in _POOLS.values():
        problems.append(f"image.pool is {tower.pool!r}, expected one of {', '.join(map(repr, _POOLS.values()))}")
    if tower.patch_bias == tower.pre_norm:
        problems.append(
            f"image.patch_bias is {tower.patch_bias}, {_NAME} has {not tower.pre_norm}, opposite to pre_norm"
        )
    epsilons = (1e-6,) if tower.act == "swiglu" else tuple(_ARCHITECTURES)
    if tower.ln_eps not in epsilons:
        problems.append(f"image.ln_eps is {tower.ln_eps}, expected one of {', '.join(map(str, epsilons))}")
    if tower.act == "swiglu" and tower.pool == "map":
        problems.append(f"image.act is 'swiglu', which {_NAME} does not have in the pooling 'map'")
    return problems + picture_obstacles(bundle, format=_NAME)


def _pool(architecture: str, tensors: Mapping[str, np.ndarray]) -> str:
    if "_gap" in architecture:
        return "avg"
    if "attn_pool.latent" in tensors:
        return "map"
    return "token" if "cls_token" in tensors else "avg"

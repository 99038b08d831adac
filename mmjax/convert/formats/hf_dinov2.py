"""Image towers to and from folders that `transformers.Dinov2Model` and `Dinov2WithRegistersModel` load.

The embedding is the class token after the last norm, the `pooler_output` there. The table of positions keeps its own
size, which may differ from that of the pictures (518 and 224): both sides resample it at every call, DINOv2 by
"bicubic", with registers by "bicubic_antialias". The mask token of pre-training is left out, and zeros where the class
needs one; folders of `Dinov2ForImageClassification` are read without the classifier.

Reference: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024; Darcet et al.,
"Vision Transformers Need Registers", ICLR 2024; huggingface/transformers 5.23.0, `models/dinov2` and
`models/dinov2_with_registers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle, picture_size
from mmjax.convert.errors import ConversionError
from mmjax.convert.format import Format
from mmjax.convert.formats._hf_vit_backbone import ATTENTION, FIXED, IGNORE, RULES, backbone_tensors, read_backbone
from mmjax.convert.hf_config import ACTS, tower_config, tower_fields, tower_problems
from mmjax.convert.hf_folder import write_preprocessing
from mmjax.convert.hf_network import hf_parts, load_pretrained
from mmjax.convert.layers import layers
from mmjax.convert.network import Network, Tower
from mmjax.convert.obstacles import picture_obstacles, tower_obstacles
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.convert.transforms import leading
from mmjax.models import DualEncoder, VisionTransformer

_NAME = "HF DINOv2"
_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
_RESIZE = {"dinov2": "bicubic", "dinov2_with_registers": "bicubic_antialias"}
_FIXED: dict[str, Any] = {**FIXED, "pool": "tok", "output_dim": None}

_BLOCK = {
    "ln_1": "norm1",
    **ATTENTION,
    "ln_2": "norm2",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
    "mlp/{gate,up}": "mlp.weights_in",
    "mlp/down": "mlp.weights_out",
}
_RULES = (
    *RULES,
    Rule("image/register_embedding", "embeddings.register_tokens", leading()),
    *layers("image/encoder/block_{i}", "encoder.layer.{i}", _BLOCK),
    Rule("image/encoder/block_{i}/gamma_1", "encoder.layer.{i}.layer_scale1.lambda1"),
    Rule("image/encoder/block_{i}/gamma_2", "encoder.layer.{i}.layer_scale2.lambda1"),
)

# Folders leave out what equals the defaults of `Dinov2Config` and `Dinov2WithRegistersConfig`.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "num_channels": 3,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
}
_OWN_DEFAULTS = {
    "dinov2": {"patch_size": 14, "num_register_tokens": 0},
    "dinov2_with_registers": {"patch_size": 16, "num_register_tokens": 4},
}


def _model_type(tower: VisionTransformer) -> str:
    return "dinov2_with_registers" if tower.num_registers else "dinov2"


def _mlp_width(width: int, ratio: float, *, gated: bool) -> int:
    """Hidden width of an MLP; a gated one has two thirds of it, rounded up to a multiple of 8."""
    hidden = int(width * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def _mlp_ratio(tower: VisionTransformer) -> int | None:
    """The ratio that gives the tower's hidden width; configs have whole numbers only."""
    width, hidden, gated = tower.width, round(tower.mlp_ratio * tower.width), tower.act == "swiglu"
    ratios = range(1, 2 * hidden // width + 2)
    return next((ratio for ratio in ratios if _mlp_width(width, ratio, gated=gated) == hidden), None)


def _detect(source: Source) -> bool:
    return source.config.get("model_type") in _CLASSES


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    return _RULES


def _tensors(source: Source) -> dict[str, np.ndarray]:
    return backbone_tensors(source, f"{source.config['model_type']}.")


def _tower(config: Mapping[str, Any]) -> VisionTransformer:
    kind = config["model_type"]
    config = {**_DEFAULTS, **_OWN_DEFAULTS[kind], **config}
    if problems := tower_problems("config.json", config):
        raise ConversionError("cannot take over config.json", problems)
    gated = config["use_swiglu_ffn"]
    hidden = _mlp_width(config["hidden_size"], config["mlp_ratio"], gated=gated)
    fields = tower_fields(config | {"intermediate_size": hidden})
    return VisionTransformer(
        config["patch_size"],
        image_size=config["image_size"],
        position_resize=_RESIZE[kind],
        num_registers=config["num_register_tokens"],
        layer_scale=config["layerscale_value"],
        **_FIXED,
        **(fields | {"act": "swiglu"} if gated else fields),
    )


def _read(source: Source) -> Bundle:
    return read_backbone(source, _CLASSES, _tower)


def _obstacles(bundle: Bundle) -> list[str]:
    acts = (*ACTS, "swiglu")
    problems = tower_obstacles(bundle, "image", VisionTransformer, format=_NAME, fixed=_FIXED, acts=acts)
    tower = bundle.model.image
    if not isinstance(tower, VisionTransformer):
        return problems
    if tower.layer_scale is None:
        problems.append(f"image.layer_scale is None, but {_NAME} always scales")
    if _mlp_ratio(tower) is None:
        expected = "two thirds of a whole number" if tower.act == "swiglu" else "a whole number"
        problems.append(f"image.mlp_ratio is {tower.mlp_ratio}, expected {expected}")
    return problems + _picture_obstacles(bundle, tower)


def _picture_obstacles(bundle: Bundle, tower: VisionTransformer) -> list[str]:
    """Pictures may be of another size than the table, if it is square and resampled as there."""
    problems, wanted = picture_obstacles(bundle, format=_NAME), _RESIZE[_model_type(tower)]
    if not problems or bundle.image is None or not isinstance(tower.image_size, int):
        return problems
    if tower.position_resize == wanted:
        return []
    return [f"{problem}, to which {_NAME} resizes by {wanted!r}, not {tower.position_resize!r}" for problem in problems]


def _config(bundle: Bundle) -> dict[str, Any]:
    tower: Any = bundle.model.image
    kind, gated = _model_type(tower), tower.act == "swiglu"
    config = tower_config(tower.clone(act="gelu") if gated else tower)
    del config["intermediate_size"]
    return {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "dtype": "float32",
        **config,
        "mlp_ratio": _mlp_ratio(tower),
        "use_swiglu_ffn": gated,
        "layerscale_value": float(tower.layer_scale),
        "image_size": tower.image_size if isinstance(tower.image_size, int) else picture_size(bundle),
        "patch_size": tower.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        **({"num_register_tokens": tower.num_registers} if tower.num_registers else {"use_mask_token": False}),
    }


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    tower: Any = bundle.model.image
    unused = {"embeddings.mask_token": np.zeros((1, tower.width), np.float32)} if tower.num_registers else {}
    write_json(folder / "config.json", _config(bundle))
    write_tensors(folder, {**tensors, **unused})
    write_preprocessing(folder, bundle.image, kind="BitImageProcessor")


def _load(source: Source) -> Network:
    network = load_pretrained(_CLASSES[source.config["model_type"]], source.folder)
    tower = Tower(lambda pixels: network(pixels).pooler_output, network.encoder.layer)
    return Network(image=tower, **hf_parts(source.folder, text=False))


FORMAT = Format(
    name=_NAME,
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=_obstacles,
    write=_write,
    load=_load,
    towers=("image",),
    ignore=IGNORE,
    tensors=_tensors,
)

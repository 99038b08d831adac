"""Image towers to and from folders that `transformers.ViTModel` loads.

The embedding is that of the folder's pooler, the `pooler_output` there: of pool "pooler" tanh of a layer on the class
token, of pool "tok" with a projection that layer without tanh (`pooler_act` "linear"). Without a pooler it is the class
token after the last norm, `last_hidden_state[:, 0]`; `ViTModel` then draws a pooler at random, unless it is loaded with
`add_pooling_layer=False`. Folders of `ViTForImageClassification` are read without the classifier. Positions are
resampled as `interpolate_pos_encoding=True` does.

Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; huggingface/transformers 5.23.0,
`models/vit`.
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
from mmjax.convert.layers import dense, layers
from mmjax.convert.network import Network, Tower
from mmjax.convert.obstacles import picture_obstacles, tower_obstacles
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.models import DualEncoder, VisionTransformer

_NAME, _TYPE = "HF ViT", "vit"
_FIXED: dict[str, Any] = {**FIXED, "num_registers": 0, "layer_scale": None}
_POOLER = "pooler.dense"

_BLOCK = {
    "ln_1": "layernorm_before",
    **ATTENTION,
    "ln_2": "layernorm_after",
    "mlp/fc1": "intermediate.dense",
    "mlp/fc2": "output.dense",
}
_RULES = (
    *RULES,
    *layers("image/encoder/block_{i}", "encoder.layer.{i}", _BLOCK),
    *dense("image/pooler", _POOLER),
    *dense("image/proj", _POOLER),
)

# Folders leave out what equals the defaults of `ViTConfig`.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "pooler_output_size": None,
    "pooler_act": "tanh",
}


def _detect(source: Source) -> bool:
    return source.config.get("model_type") == _TYPE


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    return _RULES


def _tensors(source: Source) -> dict[str, np.ndarray]:
    return backbone_tensors(source, f"{_TYPE}.")


def _has_pooler(source: Source) -> bool:
    return f"{_POOLER}.weight" in _tensors(source)


def _tower(config: Mapping[str, Any], *, pooler: bool) -> VisionTransformer:
    config = {**_DEFAULTS, **config}
    problems = tower_problems("config.json", config)
    act, width = config["pooler_act"], config["pooler_output_size"] or config["hidden_size"]
    if pooler and act not in ("tanh", "linear"):
        problems.append(f"config.json.pooler_act is {act!r}, expected 'tanh' or 'linear'")
    if pooler and act == "tanh" and width != config["hidden_size"]:
        problems.append(f"config.json.pooler_output_size is {width}, expected hidden_size, {config['hidden_size']}")
    if problems:
        raise ConversionError("cannot take over config.json", problems)
    linear = pooler and act == "linear"
    return VisionTransformer(
        config["patch_size"],
        image_size=config["image_size"],
        position_resize="bicubic",
        pool="pooler" if pooler and not linear else "tok",
        output_dim=width if linear else None,
        proj_bias=linear,
        **_FIXED,
        **tower_fields(config),
    )


def _read(source: Source) -> Bundle:
    return read_backbone(source, (_TYPE,), lambda config: _tower(config, pooler=_has_pooler(source)))


def _obstacles(bundle: Bundle) -> list[str]:
    problems = tower_obstacles(bundle, "image", VisionTransformer, format=_NAME, fixed=_FIXED, acts=ACTS)
    tower = bundle.model.image
    if isinstance(tower, VisionTransformer):
        if tower.pool not in ("tok", "pooler"):
            problems.append(f"image.pool is {tower.pool!r}, but {_NAME} reads the class token ('tok' or 'pooler')")
        if tower.pool == "pooler" and tower.output_dim is not None:
            problems.append(f"image.output_dim is {tower.output_dim}, but {_NAME} has nothing behind the pooler")
    return problems + picture_obstacles(bundle, format=_NAME)


def _config(bundle: Bundle) -> dict[str, Any]:
    tower: Any = bundle.model.image
    return {
        "architectures": ["ViTModel"],
        "model_type": _TYPE,
        "dtype": "float32",
        **tower_config(tower),
        "image_size": picture_size(bundle),
        "patch_size": tower.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "pooler_output_size": tower.output_dim or tower.width,
        "pooler_act": "tanh" if tower.output_dim is None else "linear",
    }


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    tower: Any = bundle.model.image
    # The pooler has a bias, which our projections mostly lack.
    unused = {} if tower.output_dim is None else {f"{_POOLER}.bias": np.zeros(tower.output_dim, np.float32)}
    write_json(folder / "config.json", _config(bundle))
    write_tensors(folder, {**unused, **tensors})
    write_preprocessing(folder, bundle.image, kind="ViTImageProcessor")


def _load(source: Source) -> Network:
    pooler = _has_pooler(source)
    network = load_pretrained("ViTModel", source.folder, add_pooling_layer=pooler)

    def embed(pixels: Any) -> Any:
        output = network(pixels)
        return output.pooler_output if pooler else output.last_hidden_state[:, 0]

    return Network(image=Tower(embed, network.layers), **hf_parts(source.folder, text=False))


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

"""Image towers to and from folders that `timm.create_model("local-dir:...", pretrained=True)` loads.

The plain ViTs of timm: augreg's, CLIP's (a norm before the blocks), SigLIP's (attention pooling), DINOv2's (layer
scale, registers, gated MLP), with their head as the projection. timm's head always has a bias; where that is zero, the
projection has none. Positions of registers are added to the registers, those of another grid are resampled as timm
does. A mean over patches that is normalised only after it (`fc_norm`) has no counterpart.

Reference: Wightman, "PyTorch Image Models", 2019; Steiner et al., "How to train your ViT?", TMLR 2022;
huggingface/pytorch-image-models 1.0.31, `timm/models/vision_transformer.py`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import ConversionError, read_all
from mmjax.convert.extras import require
from mmjax.convert.format import Format
from mmjax.convert.formats._timm_vit_config import (
    picture_side,
    pretrained_cfg,
    timm_config,
    timm_obstacles,
    timm_preprocessing,
    timm_tower,
)
from mmjax.convert.formats._torchvision import CROP_FACT, preprocess_by
from mmjax.convert.formats._vit_shapes import grid_side, resample
from mmjax.convert.layers import dense, layer_norm, layers
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.convert.transforms import CONV, leading
from mmjax.models import DualEncoder, VisionTransformer

_MLP = {"mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}
_LAYER = {"ln_1": "norm1", "attn/{query,key,value}": "attn.qkv", "attn/out": "attn.proj", "ln_2": "norm2"}
_GATED = {"mlp/{gate,up}": "mlp.fc1", "mlp/down": "mlp.fc2"}
_POOL = {"attn/query": "q", "attn/{key,value}": "kv", "attn/out": "proj", "ln": "norm"}


def timm_rules(prefix: str = "") -> tuple[Rule, ...]:
    """The table, for tensors with `prefix` before their names."""
    return (
        Rule("image/patch_embed/kernel", f"{prefix}patch_embed.proj.weight", CONV),
        Rule("image/patch_embed/bias", f"{prefix}patch_embed.proj.bias"),
        Rule("image/class_embedding", f"{prefix}cls_token", leading(2)),
        Rule("image/position_embedding", f"{prefix}pos_embed", leading()),
        Rule("image/register_embedding", f"{prefix}reg_token", leading()),
        *layer_norm("image/ln_pre", f"{prefix}norm_pre"),
        *layers("image/encoder/block_{i}", f"{prefix}blocks.{{i}}", {**_LAYER, **_MLP, **_GATED}),
        Rule("image/encoder/block_{i}/gamma_1", f"{prefix}blocks.{{i}}.ls1.gamma"),
        Rule("image/encoder/block_{i}/gamma_2", f"{prefix}blocks.{{i}}.ls2.gamma"),
        *layer_norm("image/ln_post", f"{prefix}norm"),
        Rule("image/attn_pool/probe", f"{prefix}attn_pool.latent", leading(2)),
        *layers("image/attn_pool", f"{prefix}attn_pool", {**_POOL, **_MLP}),
        *dense("image/proj", f"{prefix}head"),
    )


_RULES = timm_rules()


def plain_tensors(
    tensors: Mapping[str, np.ndarray], tower: VisionTransformer, *, arguments: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors of a tower as the table has them, whatever variant of timm's ViT they are of.

    Args:
      tensors: of timm.
      tower: what `timm_tower` made of them.
      arguments: those that it was given. Without `no_embed_class`, which says whether class token and registers are
        without position, the number of positions does.
    """
    used = {"attn_pool.": tower.pool == "map", "head.": tower.output_dim is not None, "head.bias": tower.proj_bias}
    unused = tuple(prefix for prefix, wanted in used.items() if not wanted)
    kept = {name: x for name, x in tensors.items() if not name.startswith(unused)}
    if tower.pool == "tok" and arguments.get("fc_norm"):  # Of one token, the norm after pooling is that before it.
        kept = {f"norm.{name[8:]}" if name.startswith("fc_norm.") else name: x for name, x in kept.items()}
    for i in range(tower.num_layers):
        kept.setdefault(f"blocks.{i}.attn.qkv.bias", np.zeros(3 * tower.width, np.float32))
    positions, first = kept["pos_embed"][0], int(tower.class_token)
    num_prefix = first + tower.num_registers
    if arguments.get("no_embed_class", grid_side(len(positions) - num_prefix) is None):
        positions = np.concatenate([np.zeros((first, tower.width), np.float32), positions])
    elif tower.num_registers:
        kept["reg_token"] = np.add(kept["reg_token"], positions[first:num_prefix], dtype=np.float32)
        positions = np.concatenate([positions[:first], positions[num_prefix:]])
    side = cast(int, tower.image_size) // tower.patch_size
    return kept | {"pos_embed": resample(positions, side=side, num_prefix=first)[None]}


def _detect(source: Source) -> bool:
    if source.config:
        return "architecture" in source.config and "model_type" not in source.config
    return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= source.tensors.keys()


def _read(source: Source) -> Bundle:
    config = source.config
    if "architecture" not in config:
        fix = 'put a config.json such as {"architecture": "vit_base_patch16_224"} beside them'
        problem = f"the tensors say neither the activation nor the preprocessing; {fix}"
        raise ConversionError(f"cannot read {source.path}", [problem])
    parts = read_all(
        f"cannot read {source.path}", tower=lambda: _tower(source), image=lambda: timm_preprocessing(config)
    )
    return Bundle(DualEncoder(parts["tower"]), {}, image=parts["image"])


def _tower(source: Source) -> VisionTransformer:
    config = source.config
    arguments = config.get("model_args") or {}
    return timm_tower(
        config["architecture"],
        source.tensors,
        image_size=picture_side(config),
        num_classes={**config, **arguments}.get("num_classes"),
        arguments=pretrained_cfg(config) | arguments,
    )


def _tensors(source: Source) -> dict[str, np.ndarray]:
    return plain_tensors(source.tensors, _tower(source), arguments=source.config.get("model_args") or {})


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    tower: Any = bundle.model.image
    first, registers = int(tower.class_token), tower.num_registers
    positions = tensors["pos_embed"]
    no_embed_class = first + registers > 0 and not np.any(positions[:, :first])
    if no_embed_class:
        positions = positions[:, first:]
    elif registers:
        absent = np.zeros((1, registers, tower.width), np.float32)
        positions = np.concatenate([positions[:, :first], absent, positions[:, first:]], axis=1)
    tensors = {**tensors, "pos_embed": np.ascontiguousarray(positions)}
    if tower.output_dim is not None:
        tensors.setdefault("head.bias", np.zeros(tower.output_dim, np.float32))
    write_json(folder / "config.json", timm_config(bundle, no_embed_class=no_embed_class))
    write_tensors(folder, tensors)


def _load(source: Source) -> Network:
    torch = require("torch", extra="open_clip", purpose="verification")
    timm = require("timm", extra="open_clip", purpose="verification")
    with tempfile.TemporaryDirectory() as copy:
        folder = source.folder
        if source.path != folder:  # Of the files in a folder, timm takes which it likes.
            folder = Path(copy)
            write_json(folder / "config.json", source.config)
            write_tensors(folder, source.tensors)
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pipeline = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    return Network(
        image=Tower(network, network.blocks),
        preprocess=preprocess_by(pipeline),
        facts={
            "versions": f"torch {torch.__version__}, timm {timm.__version__}",
            "architecture": source.config["architecture"],
            "centre crop": CROP_FACT,
        },
    )


FORMAT = Format(
    name="timm ViT",
    detect=_detect,
    read=_read,
    rules=lambda model: _RULES,
    obstacles=timm_obstacles,
    write=_write,
    load=_load,
    towers=("image",),
    ignore=("pre_logits.*",),
    tensors=_tensors,
)

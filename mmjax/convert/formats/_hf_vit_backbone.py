"""What HF's ViT and DINOv2 have in common: the names of embeddings and attention, and a backbone below a head.

The modules of `transformers` have been renamed since; its files keep these names.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import ConversionError, read_all
from mmjax.convert.hf_folder import read_preprocessing
from mmjax.convert.layers import layer_norm
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source
from mmjax.convert.transforms import CONV, leading
from mmjax.models import DualEncoder, VisionTransformer

# What both take for granted, in the fields of our tower.
FIXED: Mapping[str, Any] = {"class_token": True, "position": "learned", "pre_norm": False, "patch_bias": True}

RULES = (
    Rule("image/patch_embed/kernel", "embeddings.patch_embeddings.projection.weight", CONV),
    Rule("image/patch_embed/bias", "embeddings.patch_embeddings.projection.bias"),
    Rule("image/class_embedding", "embeddings.cls_token", leading(2)),
    Rule("image/position_embedding", "embeddings.position_embeddings", leading()),
    *layer_norm("image/ln_post", "layernorm"),
)
ATTENTION = {
    "attn/query": "attention.attention.query",
    "attn/key": "attention.attention.key",
    "attn/value": "attention.attention.value",
    "attn/out": "attention.output.dense",
}

# The token that stands for hidden patches in pre-training, and the layer of `...ForImageClassification`.
IGNORE = ("embeddings.mask_token", "classifier.*")


def read_backbone(
    source: Source, model_types: Collection[str], tower: Callable[[Mapping[str, Any]], VisionTransformer]
) -> Bundle:
    """The bundle of a folder but its parameters, `tower` being that of its config.

    Raises:
      ConversionError: the folder is of none of these types, or cannot be taken over; all reasons are listed.
    """
    summary, found = f"cannot read {source.folder}", source.config.get("model_type")
    if found not in model_types:
        expected = " or ".join(map(repr, model_types))
        raise ConversionError(summary, [f"model_type is {found!r}, expected {expected}"])
    parts = read_all(summary, tower=lambda: tower(source.config), image=lambda: read_preprocessing(source.folder))
    return Bundle(DualEncoder(image=parts["tower"]), {}, image=parts["image"])


def backbone_tensors(source: Source, prefix: str) -> dict[str, np.ndarray]:
    """The tensors of a backbone, which lie below `prefix` where a head is on it.

    With `qkv_bias` off, query, key and value have zeros as biases.
    """
    tensors = {name.removeprefix(prefix): tensor for name, tensor in source.tensors.items()}
    if not source.config.get("qkv_bias", True):
        kernels = tuple(f"{ATTENTION[f'attn/{part}']}.weight" for part in ("query", "key", "value"))
        names = [name for name in tensors if name.endswith(kernels)]
        tensors |= {f"{name.removesuffix('weight')}bias": np.zeros(len(tensors[name]), np.float32) for name in names}
    return tensors

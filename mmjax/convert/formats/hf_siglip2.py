"""Dual encoders to and from folders of `transformers.Siglip2Model`, at one fixed resolution.

`Siglip2Model` takes patches of pictures that keep their shape (NaFlex): `pixel_values` `[B, N, 3 p^2]` with
`spatial_shapes`. Here it is the model of squares that fill its table of positions, which is then not resampled. Its own
image processor makes other shapes, so the folder has one that makes squares, whose patches the user takes (rows, then
columns, then channels). SigLIP 2 at a fixed resolution as it is published is a `SiglipModel`, see `hf_siglip`.

`transformers` makes a `Siglip2Tokenizer` of any tokenizer in such a folder: Gemma's, lower-casing.

Reference: Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding,
Localization, and Dense Features", 2025; huggingface/transformers 5.23.0, `models/siglip2`.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import normalizers

from mmjax.convert.bundle import Bundle, picture_size
from mmjax.convert.errors import ConversionError
from mmjax.convert.format import Format
from mmjax.convert.formats._hf_siglip import (
    PATCHES,
    RULES,
    read_siglip,
    read_siglip_tokenizer,
    siglip_network,
    write_siglip,
)
from mmjax.convert.formats._hf_siglip_config import siglip_config, siglip_obstacles
from mmjax.convert.hf_folder import read_preprocessing
from mmjax.convert.hf_network import load_pretrained
from mmjax.convert.network import Network
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source
from mmjax.convert.transforms import patch_dense
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder

_NAME, _TYPE = "HF SigLIP 2", "siglip2"


def _detect(source: Source) -> bool:
    return source.config.get("model_type") == _TYPE


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    image: Any = model.image
    return (Rule("image/patch_embed/kernel", PATCHES, patch_dense(image.patch_size)), *RULES)


def _read(source: Source) -> Bundle:
    return read_siglip(source, _TYPE, vision=_vision, tokenizer=_read_tokenizer, image=_read_preprocessing)


def _vision(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the size of the squares that fill the table of positions."""
    patches = config.get("num_patches", 256)
    side = math.isqrt(patches)
    if side**2 != patches:
        problem = f"vision_config.num_patches is {patches}, expected the square of a number"
        raise ConversionError("cannot take over vision_config", [problem])
    return {**config, "image_size": side * config.get("patch_size", 16)}


def _read_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = read_siglip_tokenizer(folder)
    tokenizer.backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    return tokenizer


def _read_preprocessing(folder: Path) -> ImageSpec:
    try:
        return read_preprocessing(folder)
    except ConversionError as error:
        if not any("Siglip2ImageProcessor" in problem for problem in error.problems):
            raise
        problem = (
            "Siglip2ImageProcessor leaves pictures their shape (NaFlex), mmjax makes them squares; for a fixed "
            "resolution take a SiglipModel, or put a SiglipImageProcessor into preprocessor_config.json"
        )
        raise ConversionError(f"cannot take over the preprocessing of {folder}", [problem]) from None


def _obstacles(bundle: Bundle) -> list[str]:
    problems = siglip_obstacles(bundle, format=_NAME)
    if bundle.tokenizer is not None and not _is_gemma(bundle.tokenizer):
        problems.append("the tokenizer is not Gemma's (BPE with byte fallback, lower-casing), which HF SigLIP 2 takes")
    return problems


def _is_gemma(tokenizer: Tokenizer) -> bool:
    content = json.loads(tokenizer.backend.to_str())
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return (
        content["model"].get("byte_fallback", False)
        and content["normalizer"] == {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, space]}
        and (content["pre_tokenizer"] or {"type": "Split"})["type"] == "Split"
    )


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    image: Any = bundle.model.image
    config = siglip_config(bundle, _TYPE, num_patches=(picture_size(bundle) // image.patch_size) ** 2)
    write_siglip(folder, bundle, tensors, config=config, processor="Siglip2Processor")


def _load(source: Source) -> Network:
    network = load_pretrained("Siglip2Model", source.folder)
    patch_size = network.config.vision_config.patch_size

    def patches(pixels: Any) -> dict[str, Any]:
        count, channels, height, width = pixels.shape
        grid = height // patch_size, width // patch_size
        x = pixels.reshape(count, channels, grid[0], patch_size, grid[1], patch_size).permute(0, 2, 4, 3, 5, 1)
        return {
            "pixel_values": x.reshape(count, grid[0] * grid[1], -1),
            "pixel_attention_mask": pixels.new_ones(count, grid[0] * grid[1]).long(),
            "spatial_shapes": pixels.new_tensor([grid] * count).long(),
        }

    return siglip_network(source, network, pictures=patches)


FORMAT = Format(
    name=_NAME,
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=_obstacles,
    write=_write,
    load=_load,
    ignore=("*.position_ids",),
)

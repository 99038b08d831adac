"""Dual encoders to and from folders that `transformers.SiglipModel` and `SiglipProcessor` load.

The checkpoints of SigLIP 2 at a fixed resolution are of this class, too. A user of the folder pads every text:
`processor(text=texts, images=pictures, padding="max_length", truncation=True, return_tensors="pt")`.

Reference: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023; Tschannen et al., "SigLIP 2:
Multilingual Vision-Language Encoders with Improved Semantic Understanding, Localization, and Dense Features", 2025;
huggingface/transformers 5.23.0, `models/siglip`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmjax.convert.bundle import Bundle, picture_size
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
from mmjax.convert.transforms import CONV
from mmjax.models import DualEncoder

_NAME, _TYPE = "HF SigLIP", "siglip"
_RULES = (Rule("image/patch_embed/kernel", PATCHES, CONV), *RULES)


def _detect(source: Source) -> bool:
    return source.config.get("model_type") == _TYPE


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    return _RULES


def _read(source: Source) -> Bundle:
    return read_siglip(source, _TYPE, vision=dict, tokenizer=read_siglip_tokenizer, image=read_preprocessing)


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    config = siglip_config(bundle, _TYPE, image_size=picture_size(bundle))
    write_siglip(folder, bundle, tensors, config=config, processor="SiglipProcessor")


def _load(source: Source) -> Network:
    network = load_pretrained("SiglipModel", source.folder)
    return siglip_network(source, network, pictures=lambda pixels: {"pixel_values": pixels})


FORMAT = Format(
    name=_NAME,
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=functools.partial(siglip_obstacles, format=_NAME),
    write=_write,
    load=_load,
    ignore=("*.position_ids",),
)

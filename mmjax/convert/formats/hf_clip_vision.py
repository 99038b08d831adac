"""Image towers to and from folders that `transformers.CLIPVisionModel` and `CLIPVisionModelWithProjection` load.

A tower without projection (`output_dim=None`) embeds by its class token after the last norm, the `pooler_output` of
`CLIPVisionModel`; with one it is a `CLIPVisionModelWithProjection`.

Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021;
huggingface/transformers 5.23.0, `models/clip`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import read_all
from mmjax.convert.format import Format
from mmjax.convert.formats._hf_clip_config import image_obstacles, vision_config, vision_tower
from mmjax.convert.formats._hf_clip_tower import projects, read_config, tower_class, tower_tensors, write_config
from mmjax.convert.formats.hf_clip import RULES
from mmjax.convert.hf_folder import read_preprocessing, write_preprocessing
from mmjax.convert.hf_network import hf_parts, load_pretrained
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.models import DualEncoder

_CLASS, _TYPE = "CLIPVisionModel", "clip_vision_model"
_PROJECTION = "visual_projection.weight"


def _detect(source: Source) -> bool:
    return source.config.get("model_type") == _TYPE


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    return RULES


def _tensors(source: Source) -> dict[str, np.ndarray]:
    return tower_tensors(source, "vision_model", _PROJECTION)


def _read(source: Source) -> Bundle:
    config = read_config(source, _TYPE)
    dim = config.get("projection_dim", 512) if projects(source, _PROJECTION) else None
    parts = read_all(
        f"cannot read {source.folder}",
        vision=lambda: vision_tower(config, output_dim=dim),
        image=lambda: read_preprocessing(source.folder),
    )
    return Bundle(DualEncoder(image=parts["vision"]), {}, image=parts["image"])


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    kind = tower_class(_CLASS, projects=_PROJECTION in tensors)
    write_json(folder / "config.json", write_config(vision_config(bundle), kind))
    write_tensors(folder, tensors)
    write_preprocessing(folder, bundle.image)


def _load(source: Source) -> Network:
    project = projects(source, _PROJECTION)
    network = load_pretrained(tower_class(_CLASS, projects=project), source.folder)
    tower = network.vision_model if project else network
    name = "image_embeds" if project else "pooler_output"
    image = Tower(lambda pixels: getattr(network(pixels), name), tower.encoder.layers)
    return Network(image=image, **hf_parts(source.folder, text=False))


FORMAT = Format(
    name="HF CLIP vision",
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=image_obstacles,
    write=_write,
    load=_load,
    towers=("image",),
    ignore=("*.position_ids",),
    tensors=_tensors,
)

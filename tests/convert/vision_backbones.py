"""Tiny image towers that HF's ViT or DINOv2 compute, with random parameters."""

import json
from pathlib import Path
from typing import Any

from mmjax.convert import Bundle
from mmjax.data import ImageSpec
from mmjax.models import DualEncoder, VisionTransformer
from tests.convert.random_params import with_random_params


def tiny_backbone(*, spec: ImageSpec | None = None, **settings: Any) -> Bundle:
    """A tower without projection and first norm.

    Args:
      spec: preprocessing; None = that of pictures of the tower's size.
      **settings: fields of the tower.
    """
    size = {"patch_size": 4, "image_size": 16, "width": 16, "num_layers": 1, "num_heads": 2, "output_dim": None}
    tower = VisionTransformer(**{**size, "pre_norm": False, "patch_bias": True, "ln_eps": 1e-6, **settings})
    return with_random_params(Bundle(DualEncoder(image=tower), {}, image=spec or ImageSpec(tower.image_size)))


def edit(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; those set to None are taken away."""
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

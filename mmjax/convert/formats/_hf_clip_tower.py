"""One tower of CLIP in a folder of its own, with its projection or without."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.convert.errors import ConversionError
from mmjax.convert.source import Source


def read_config(source: Source, model_type: str) -> Mapping[str, Any]:
    """The config of a folder of that type.

    Raises:
      ConversionError: it is of another.
    """
    found = source.config.get("model_type")
    if found != model_type:
        raise ConversionError(f"cannot read {source.folder}", [f"model_type is {found!r}, expected {model_type!r}"])
    return source.config


def write_config(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The config of a folder whose tower is of class `kind`: without projection it does not say how wide that is."""
    known = {key: value for key, value in config.items() if key != "projection_dim" or value is not None}
    return {"architectures": [kind], "dtype": "float32", **known}


def tower_class(name: str, *, projects: bool) -> str:
    """The class of a tower, for which `name` stands where it does not project.

    >>> tower_class("CLIPTextModel", projects=True)
    'CLIPTextModelWithProjection'
    """
    return f"{name}WithProjection" if projects else name


def projects(source: Source, projection: str) -> bool:
    """Whether the tower projects: its class is said to, or there is a tensor of the name `projection`."""
    kinds = source.config.get("architectures") or ()
    return projection in source.tensors or any(kind.endswith("WithProjection") for kind in kinds)


def tower_tensors(source: Source, tower: str, projection: str) -> dict[str, np.ndarray]:
    """The tensors by their names in `CLIPModel`, those of the tower below `tower`.

    `transformers` 5 saves the classes without projection with no name above the tower's own; before, and with
    projection, they are as in `CLIPModel`, and `transformers` reads both.
    """
    prefix = f"{tower}."
    return {
        name if name == projection else prefix + name.removeprefix(prefix): tensor
        for name, tensor in source.tensors.items()
    }

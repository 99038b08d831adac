"""The READMEs beside exported programs: how to run them without mmjax."""

from collections.abc import Sequence

from mmjax.convert.bundle import Bundle, towers

_JAX_TITLE = """# Exported programs

Encoders as StableHLO, written by mmjax with `jax.export`: batches of any size, on {platforms}. They need jax, and the
lines below numpy, safetensors, Pillow and tokenizers; not mmjax. `program.json` has the shapes and dtypes of inputs and
outputs. The programs compute in float32, with products as exact as the platform has them by default (TPUs round their
factors to bfloat16); embeddings are not normalised.
"""
_ONNX_TITLE = """# Exported graphs

Encoders as ONNX, written by mmjax with PyTorch's exporter: batches of any size. They need a runtime of ONNX, and the
lines below onnxruntime, numpy, Pillow and tokenizers; not mmjax. `program.json` has the shapes and dtypes of inputs and
outputs. The graphs compute in float32; embeddings are not normalised.
"""
_JAX_LOAD = """\
import json

import jax
import numpy as np
import PIL.Image
import tokenizers
from jax import export
from safetensors.numpy import load_file

with open("program.json") as file:
    about = json.load(file)


def load(name):
    with open(f"{name}.bin", "rb") as file:
        program = export.deserialize(bytearray(file.read()))
    params = jax.device_put(load_file(f"{name}.safetensors"))
    call = jax.jit(program.call)
    return lambda *inputs: np.asarray(call(params, *inputs))
"""
_ONNX_LOAD = """\
import json

import numpy as np
import onnxruntime
import PIL.Image
import tokenizers

with open("program.json") as file:
    about = json.load(file)


def load(name):
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    names = [item["name"] for item in about["programs"][name]["inputs"]]
    return lambda *inputs: session.run(None, dict(zip(names, inputs)))[0]
"""
_NORMALISED = """

def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
"""
_SIDES = {
    "crop": "width, height = (int(scaled * side / min(image.size)) for side in image.size)",
    "squash": "width = height = scaled",
}
_IMAGE = """

def pixels(file):
    spec, image = about["image"], PIL.Image.open(file).convert("RGB")
    size, resample = spec["size"], PIL.Image.Resampling[spec["resize"].upper()]
    scaled = spec.get("scaled_size", size)
    {sides}
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), resample).crop((left, top, left + size, top + size))
    return ((np.asarray(image) / 255 - spec["mean"]) / spec["std"]).astype(np.float32)


encode_image = load("encode_image")
image_embeddings = normalised(encode_image(np.stack([pixels("picture.png"){transposed}])))
"""
_TEXT = """

def tokens(texts):
    _, length = about["programs"]["encode_text"]["inputs"][0]["shape"]
    tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(**{{**tokenizer.padding, "length": length}})
    rows = tokenizer.encode_batch(texts)
    return np.{ids}([row.ids for row in rows]), np.{mask}([row.attention_mask for row in rows])


encode_text = load("encode_text")
text_embeddings = normalised(encode_text(*tokens(["a red circle"])))
"""
_LOGITS = """
logits = np.exp(about["log_scale"]) * image_embeddings @ text_embeddings.T + about.get("bias", 0.0)
print(logits)
"""


def jax_readme(bundle: Bundle, *, platforms: Sequence[str]) -> str:
    """How to run the programs of `jax_export`, as far as preprocessing and tokenizer are known."""
    title = _JAX_TITLE.format(platforms=", ".join(platforms))
    return title + _code(bundle, _JAX_LOAD, transposed="", ids="int32", mask="bool_")


def onnx_readme(bundle: Bundle) -> str:
    """How to run the graphs of `onnx`, as far as preprocessing and tokenizer are known."""
    return _ONNX_TITLE + _code(bundle, _ONNX_LOAD, transposed=".transpose(2, 0, 1)", ids="int64", mask="int64")


def _code(bundle: Bundle, load: str, *, transposed: str, ids: str, mask: str) -> str:
    there = towers(bundle.model)
    parts = [load, _NORMALISED]
    if "image" in there and bundle.image is not None:
        parts.append(_IMAGE.format(sides=_SIDES[bundle.image.fit], transposed=transposed))
    if "text" in there and bundle.tokenizer is not None:
        parts.append(_TEXT.format(ids=ids, mask=mask))
    if len(there) == 2 and len(parts) == 4:
        parts.append(_LOGITS)
    return "\n```python\n" + "".join(parts) + "```\n"

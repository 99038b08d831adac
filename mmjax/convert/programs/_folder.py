"""What lies beside exported programs: their description, the tokenizer, and what they are fed with in a comparison."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle, towers
from mmjax.convert.parity import Row, compare
from mmjax.convert.probe import make_probe, run_bundle
from mmjax.convert.source import read_json, write_json
from mmjax.data import ImageSpec, Tokenizer, normalize, resize_as

FILE = "program.json"


def write_description(folder: Path, bundle: Bundle, **content: Any) -> None:
    """Writes `program.json`, with scale, bias and preprocessing of the bundle added, and `tokenizer.json`."""
    content |= {name: float(bundle.params[name]) for name in ("log_scale", "bias") if name in bundle.params}
    if bundle.image is not None:
        content["image"] = bundle.image.to_dict()
    write_json(folder / FILE, content)
    if bundle.tokenizer is not None:
        bundle.tokenizer.save(folder / "tokenizer.json")


def compare_programs(
    folder: Path, bundle: Bundle, load: Callable[[str], Callable[..., np.ndarray]]
) -> tuple[list[Row], Mapping[str, Any]]:
    """Runs the programs of a folder on a batch of one and on one of all inputs, prepared as the folder says.

    Args:
      folder: of the programs.
      bundle: that they were made of.
      load: the name of a tower to its program: pixels `[B, S, S, 3]`, or token ids and mask `[B, T]`, to embeddings.

    Returns:
      The comparisons, and the description.
    """
    content, probe = read_json(folder / FILE), make_probe(bundle)
    ours = run_bundle(bundle, probe)
    rows, inputs = [], {}
    if probe.image is not None:
        inputs["image"] = (probe.image.pixels,)
        if bundle.image is not None:
            rows.append(compare("pixels", ours["pixels"], _pixels(content, probe.image.raw)))
    if probe.text is not None:
        inputs["text"] = (probe.text.token_ids, probe.text.mask)
        if bundle.tokenizer is not None:
            tokenizer, length = Tokenizer.load(folder / "tokenizer.json"), probe.text.mask.shape[1]
            ids, mask = tokenizer.encode(probe.text.raw, length=length)
            rows.append(compare("token ids", ours["token ids"], np.where(mask, ids, -1), limit=0))
    embeddings = {}
    for tower in towers(bundle.model):
        program, name = load(tower), f"{tower} embeddings"
        for size in (1, len(inputs[tower][0])):
            embeddings[tower] = program(*(x[:size] for x in inputs[tower]))
            rows.append(compare(f"{name}, batch of {size}", ours[name][:size], embeddings[tower]))
    if "logits" in ours:
        image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (embeddings["image"], embeddings["text"]))
        logits = np.exp(content["log_scale"]) * image @ text.T + content.get("bias", 0.0)
        rows.append(compare("logits", ours["logits"], logits))
    return rows, content


def _pixels(content: Mapping[str, Any], pictures: Any) -> np.ndarray:
    spec = ImageSpec(**content["image"])
    return normalize(np.stack([resize_as(picture, spec) for picture in pictures]), spec)

"""ONNX graphs, one a tower, for batches of any size: PyTorch's exporter on the PyTorch format that expresses the model.

A folder holds for each tower `encode_<tower>.onnx`, parameters inside (beside it, in `encode_<tower>.onnx.data`, where
they exceed what a file of ONNX may hold), and `program.json`, `tokenizer.json` and a README. Names are those of
`transformers`: `pixel_values` `[B, 3, S, S]`; `input_ids`, `attention_mask` `[B, T]` int64; `image_embeds`,
`text_embeds` `[B, D]`.

Reference: the documentation of `torch.onnx`.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from mmjax import registry
from mmjax.convert.bundle import Bundle, picture_size, text_length, towers
from mmjax.convert.extras import require
from mmjax.convert.format import Format, Program
from mmjax.convert.network import Tower
from mmjax.convert.parity import Report
from mmjax.convert.programs._folder import compare_programs, write_description
from mmjax.convert.programs._readme import onnx_readme
from mmjax.convert.source import Source

_FORMATS = "mmjax.convert.formats"
_INPUTS = {"image": ("pixel_values",), "text": ("input_ids", "attention_mask")}
_LARGEST = 2**31 - 2**24  # Bytes of parameters that a file of ONNX holds, with room for the graph.


def _obstacles(bundle: Bundle) -> list[str]:
    """Why no PyTorch format expresses the model."""
    reasons = []
    for name, found in _formats(bundle).items():
        problems = found.obstacles(bundle)
        if not problems:
            return []
        reasons += [f"{name}: {problem}" for problem in problems]
    return reasons or [f"no PyTorch format holds {' and '.join(towers(bundle.model))} alone"]


def _formats(bundle: Bundle) -> dict[str, Format]:
    """The PyTorch formats of just these towers."""
    found = {name: registry.find(_FORMATS, name).FORMAT for name in registry.names(_FORMATS)}
    return {name: format for name, format in found.items() if set(format.towers) == towers(bundle.model).keys()}


def _save(folder: Path, bundle: Bundle) -> None:
    torch = _require("torch")
    _require("onnxscript")
    name, format = next((n, f) for n, f in _formats(bundle).items() if not f.obstacles(bundle))
    with tempfile.TemporaryDirectory() as parent:
        format.save(Path(parent), bundle)
        network = format.load(Source(Path(parent)))
    programs = {}
    for tower in towers(bundle.model):
        file = f"encode_{tower}.onnx"
        programs[f"encode_{tower}"] = _export(torch, tower, getattr(network, tower), bundle, folder / file)
    write_description(folder, bundle, through=name, torch=torch.__version__, programs=programs)
    (folder / "README.md").write_text(onnx_readme(bundle), encoding="utf-8")


def _export(torch: ModuleType, name: str, tower: Tower, bundle: Bundle, file: Path) -> dict[str, Any]:
    """Writes the graph of a tower; returns its signature."""
    batch = torch.export.Dim("batch")
    if name == "image":
        shape, dtype = (3, picture_size(bundle), picture_size(bundle)), "float32"
    else:
        shape, dtype = (text_length(bundle),), "int64"
    example = tuple(torch.ones((2, *shape), dtype=getattr(torch, dtype)) for _ in _INPUTS[name])

    class Encode(torch.nn.Module):
        def forward(self, *inputs: Any) -> Any:
            return tower.embed(*inputs)

    count = sum(x.size for x in jax.tree.leaves(bundle.params[name]))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # It warns of what is not installed,
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # and of its own deprecated calls.
        torch.onnx.export(
            Encode().eval(),
            example,
            file,
            input_names=list(_INPUTS[name]),
            output_names=[f"{name}_embeds"],
            dynamic_shapes=(tuple({0: batch} for _ in example),),
            external_data=4 * count > _LARGEST,
            dynamo=True,
            verbose=False,
        )
    inputs = [{"name": key, "shape": ["batch", *shape], "dtype": dtype} for key in _INPUTS[name]]
    return {"inputs": inputs, "output": {"name": f"{name}_embeds", "dtype": "float32"}}


def _verify(source: Source, bundle: Bundle) -> Report:
    runtime = _require("onnxruntime")

    def load(tower: str) -> Callable[..., np.ndarray]:
        file = source.folder / f"encode_{tower}.onnx"
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        taken = {node.name for node in session.get_inputs()}

        def run(*inputs: np.ndarray) -> np.ndarray:
            given = (inputs[0].transpose(0, 3, 1, 2),) if tower == "image" else [x.astype(np.int64) for x in inputs]
            feed = {name: x for name, x in zip(_INPUTS[tower], given, strict=True) if name in taken}
            return session.run(None, feed)[0]

        return run

    rows, content = compare_programs(source.folder, bundle, load)
    facts = {"onnxruntime": runtime.__version__, "torch": content["torch"], "through": content["through"]}
    return Report("ONNX and mmjax", tuple(rows), facts)


def _require(package: str) -> ModuleType:
    return require(package, extra="onnx", purpose="ONNX")


FORMAT = Program("ONNX", _obstacles, _save, _verify)

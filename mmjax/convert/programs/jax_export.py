"""Stand-alone programs: StableHLO by `jax.export`, one a tower, for batches of any size, on CPU, CUDA and TPU.

A folder holds for each tower `encode_<tower>.bin`, the program, and `encode_<tower>.safetensors`, its parameters;
besides `program.json`, `tokenizer.json`, and a README with the lines that run it without mmjax. The parameters are
arguments of the program and not constants in it: a serialized program may not exceed 2 GiB, constants are compiled
again for every batch size, and a file of tensors can be loaded onto many devices, be replaced, or be read by something
else.

Reference: the documentation of `jax.export`, by which a program runs with releases of jax of the next six months at
least, and with those of the three weeks before.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from mmjax.convert.bundle import (
    Bundle,
    in_float32,
    parameter_shapes,
    picture_size,
    select_towers,
    text_length,
    towers,
)
from mmjax.convert.format import Program
from mmjax.convert.parity import Report
from mmjax.convert.programs._folder import compare_programs, write_description
from mmjax.convert.programs._readme import jax_readme
from mmjax.convert.rules import Rule, to_foreign
from mmjax.convert.source import Source
from mmjax.convert.tensor_files import read_tensors, write_tensors
from mmjax.paths import flatten, unflatten

PLATFORMS = ("cpu", "cuda", "tpu")


def _obstacles(bundle: Bundle) -> list[str]:
    """None: a program computes whatever the model does."""
    return []


def _save(folder: Path, bundle: Bundle) -> None:
    programs = {}
    for tower in towers(bundle.model):
        part = select_towers(bundle, (tower,))
        shapes = parameter_shapes(part)
        params = to_foreign(part.params, [Rule(path, path) for path in flatten(shapes)], expected=shapes)
        exported = _export(tower, part, params)
        name = f"encode_{tower}"
        (folder / f"{name}.bin").write_bytes(exported.serialize())
        write_tensors(folder, params, file=f"{name}.safetensors")
        programs[name] = _signature(tower, exported)
    write_description(folder, bundle, jax=jax.__version__, platforms=PLATFORMS, programs=programs)
    (folder / "README.md").write_text(jax_readme(bundle, platforms=PLATFORMS), encoding="utf-8")


def _export(tower: str, bundle: Bundle, params: Mapping[str, np.ndarray]) -> export.Exported:
    """The program of a model of one tower, whose parameters come by path."""
    # Fused attention exists on some platforms only.
    model = in_float32(bundle).model
    model = model.clone(**{tower: getattr(model, tower).clone(attention="einsum")})
    (batch,) = export.symbolic_shape("batch")
    if tower == "image":
        size = picture_size(bundle)
        inputs = {"images": jax.ShapeDtypeStruct((batch, size, size, 3), np.float32)}
    else:
        shape = (batch, text_length(bundle))
        inputs = {
            "token_ids": jax.ShapeDtypeStruct(shape, np.int32),
            "text_mask": jax.ShapeDtypeStruct(shape, np.bool_),
        }

    def encode(params: Mapping[str, jax.Array], *arrays: jax.Array) -> jax.Array:
        named: dict[str, Any] = dict(zip(inputs, arrays, strict=True))
        output, _ = model.apply({"params": unflatten(params)}, **named)
        return getattr(output, f"{tower}_embeds")

    shapes = {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in params.items()}
    return export.export(jax.jit(encode), platforms=PLATFORMS)(shapes, *inputs.values())


def _signature(tower: str, exported: export.Exported) -> dict[str, Any]:
    """What the program takes beside the parameters, and what it gives."""

    def describe(name: str, array: Any) -> dict[str, Any]:
        shape = [side if isinstance(side, int) else str(side) for side in array.shape]
        return {"name": name, "shape": shape, "dtype": str(array.dtype)}

    names = {"image": ("pixels",), "text": ("token_ids", "mask")}[tower]
    inputs = exported.in_avals[-len(names) :]
    return {
        "inputs": [describe(name, array) for name, array in zip(names, inputs, strict=True)],
        "output": describe("embeddings", exported.out_avals[0]),
    }


def _verify(source: Source, bundle: Bundle) -> Report:
    def load(tower: str) -> Callable[..., np.ndarray]:
        program = export.deserialize(bytearray((source.folder / f"encode_{tower}.bin").read_bytes()))
        params = read_tensors(source.folder / f"encode_{tower}.safetensors")
        call = jax.jit(program.call)
        return lambda *inputs: np.asarray(call(params, *inputs))

    rows, content = compare_programs(source.folder, bundle, load)
    facts = {"jax": jax.__version__, "lowered for": ", ".join(content["platforms"]), "run on": jax.default_backend()}
    return Report("Programs of jax.export and mmjax", tuple(rows), facts)


FORMAT = Program("Programs of jax.export", _obstacles, _save, _verify)

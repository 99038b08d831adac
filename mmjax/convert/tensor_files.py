"""Files of tensors: safetensors, and PyTorch's pickles as far as they hold nothing but data."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from mmjax.convert.errors import ConversionError
from mmjax.convert.extras import require
from mmjax.paths import suggestion

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Names by which folders are known, the safe ones first; an index lists shards.
_USUAL = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
# Where training scripts keep the weights among other things, and what wrappers put before each name.
_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray], *, file: str = "model.safetensors") -> None:
    """Writes a safetensors file, marked as made for PyTorch."""
    path = folder / file
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors makes files that only their owner may read.


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file or folder.

    Pickles are read by `torch.load(weights_only=True)`, which runs no code. A state dict may lie under `state_dict`,
    `model_state_dict` or `model`; `module.` and `_orig_mod.` before every name are taken off.

    Args:
      path: a `.safetensors`, `.bin`, `.pt`, `.pth` or `.ckpt` file, an index of shards, or a folder with one of these;
        of several in a folder those of the usual names count, safetensors first.

    Raises:
      ConversionError: there is none, or several of which none has a usual name, a shard is missing, or a pickle holds
        more than tensors.
      MissingExtraError: a pickle without `torch`.
    """
    check_exists(path)
    file = path if path.is_file() else _find(path)
    if not file.name.endswith(".index.json"):
        return _read(file)
    names = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
    missing = [f"no {name}, which {file.name} lists" for name in names if not (file.parent / name).is_file()]
    if missing:
        raise ConversionError(f"cannot read {file.parent}", missing)
    return {name: tensor for shard in names for name, tensor in _read(file.parent / shard).items()}


def check_exists(path: Path) -> None:
    """Raises ConversionError where there is neither a file nor a folder, with near misses."""
    if not path.exists():
        near = suggestion(path.name, (other.name for other in path.parent.glob("*")))
        raise ConversionError(f"cannot read {path}", [f"no such file or folder; {near}"])


def _find(folder: Path) -> Path:
    for name in _USUAL:
        for found in (folder / name, folder / f"{name}.index.json"):
            if found.is_file():
                return found
    suffixes = (".safetensors", *_PICKLES)
    for suffix in suffixes:
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(path.name for path in found)
            raise ConversionError(f"cannot read {folder}", [f"several files of weights, name one of them: {listed}"])
    raise ConversionError(f"cannot read {folder}", [f"no file of weights ({', '.join(suffixes)})"])


def _read(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except Exception as error:  # safetensors raises its own error for damage, and KeyError for unknown dtypes.
            raise ConversionError(f"cannot read {file}", [f"no safetensors file: {error}"]) from error
    if file.suffix in _PICKLES:
        return _unwrap(file, _unpickle(file))
    raise ConversionError(f"cannot read {file}", [f"{file.suffix!r} is none of .safetensors, {', '.join(_PICKLES)}"])


def _unpickle(file: Path) -> Any:
    torch = require("torch", extra="torch", purpose=f"reading {file.name}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().split("\n")[0]
        fix = "save its state_dict() by safetensors.torch.save_file where it comes from"
        raise ConversionError(
            f"cannot read {file}", [f"holds more than tensors, and nothing here runs its code ({reason}); {fix}"]
        ) from error


def _unwrap(file: Path, content: Any) -> dict[str, np.ndarray]:
    """The state dict in what a pickle holds."""
    while isinstance(content, dict) and (inner := [content[n] for n in _NESTED if isinstance(content.get(n), dict)]):
        content = inner[0]
    if not isinstance(content, dict) or not content:
        raise ConversionError(f"cannot read {file}", [f"holds a {type(content).__name__}, expected a state dict"])
    other = [name for name, value in content.items() if not hasattr(value, "detach")]
    if other:
        raise ConversionError(
            f"cannot read {file}", [f"{name!r} is a {type(content[name]).__name__}, no tensor" for name in other]
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return {name: _to_numpy(tensor) for name, tensor in content.items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    """NumPy has no bfloat16; what floats becomes float32 in any case."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

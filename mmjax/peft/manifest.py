"""Adapters as files: their parameters alone, and a manifest that names the model they belong to."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from mmjax.convert import ConversionError, new_folder
from mmjax.parallel import params_hash
from mmjax.paths import flatten, unflatten
from mmjax.peft.adapter import Params, base_of
from mmjax.peft.hf_format import read_tensors

_TENSORS, _MANIFEST = "adapter.safetensors", "adapter.json"
_JOIN = (
    "Build the adapter from `adapter` (mmjax.peft.build_adapter); read its parameters by "
    "mmjax.peft.load_adapter(folder, params) with the parameters whose hash is `base`. What was trained by itself: "
    "adapter.wrap(model.apply)(params, adapter_params, ...), or mmjax.peft.merge(adapter, params, adapter_params). "
    "What a run has trained (under `adapter`): mmjax.peft.join_adapter(params, adapter_params) are its parameters."
)


class AdapterMismatchError(ValueError):
    """An adapter belongs to other parameters than these."""


class Manifest(NamedTuple):
    """What is said of an adapter beside its parameters.

    Attributes:
      adapter: its settings, as `build_adapter` or `adapt_method` take them.
      base: hash of the model's parameters (`params_hash`), but for those whose place is taken.
      origin: where these come from, for people.
      leaves: path -> shape and dtype.
    """

    adapter: Any
    base: str
    origin: str
    leaves: Mapping[str, tuple[tuple[int, ...], str]]

    @property
    def parameters(self) -> int:
        """Number of scalars."""
        return sum(int(np.prod(shape)) for shape, _ in self.leaves.values())


def save_adapter(
    folder: str | Path, adapter_params: Params, params: Params, *, adapter: Any = None, origin: str = ""
) -> Manifest:
    """Writes an adapter's parameters, `adapter.safetensors`, and its manifest, `adapter.json`, into a new folder.

    Args:
      folder: to make.
      adapter_params: of the adapter; of a run all that has trained, `TrainState.trainable`, which may take the place of
        leaves of the model (`log_scale`).
      params: of the model that it belongs to; they are not written.
      adapter: its settings, as JSON has them.
      origin: where the model's parameters come from, for people.

    Returns:
      The manifest.

    Raises:
      FileExistsError: `folder` exists.
    """
    flat = {path: np.asarray(leaf, order="C") for path, leaf in sorted(flatten(adapter_params).items())}
    leaves = {path: (leaf.shape, str(leaf.dtype)) for path, leaf in flat.items()}
    manifest = Manifest(adapter, _hash_beside(params, leaves), origin, leaves)
    with new_folder(folder) as staging:
        (staging / _TENSORS).write_bytes(save(flat))
        content = {"format": "mmjax adapter", **manifest._asdict(), "join": _JOIN}
        (staging / _MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of an adapter.

    Raises:
      ConversionError: the folder holds none.
    """
    path = Path(folder, _MANIFEST)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        leaves = {name: (tuple(shape), dtype) for name, (shape, dtype) in content["leaves"].items()}
        return Manifest(content["adapter"], content["base"], content["origin"], leaves)
    except (OSError, ValueError, KeyError) as error:
        problem = f"{_MANIFEST} is no manifest of an adapter: {error}"
        raise ConversionError(f"cannot read {folder}", [problem]) from error


def load_adapter(folder: str | Path, params: Params) -> tuple[dict[str, Any], Manifest]:
    """An adapter's parameters, for the model that they belong to.

    Args:
      folder: that `save_adapter` made.
      params: of the model.

    Returns:
      The parameters and the manifest.

    Raises:
      AdapterMismatchError: they belong to other parameters; the message has both hashes.
      ConversionError: a file is missing or damaged.
    """
    manifest = read_manifest(folder)
    found = _hash_beside(params, manifest.leaves)
    if manifest.base != found:
        origin = f" ({manifest.origin})" if manifest.origin else ""
        raise AdapterMismatchError(
            f"{folder} is an adapter of the parameters {manifest.base}{origin}, these are {found}; join it to those"
        )
    path = Path(folder, _TENSORS)
    if not path.is_file():
        raise ConversionError(f"cannot read {folder}", [f"no {_TENSORS}"])
    flat = read_tensors(path.read_bytes())
    if {name: (leaf.shape, str(leaf.dtype)) for name, leaf in flat.items()} != manifest.leaves:
        raise ConversionError(f"cannot read {folder}", [f"{_TENSORS} holds other leaves than {_MANIFEST} lists"])
    return unflatten(flat), manifest


def join_adapter(params: Params, adapter_params: Params) -> dict[str, Any]:
    """The parameters of an adapted model (`AdaptedModel`) from those of the model and what a run has trained.

    >>> join_adapter({"fc1": {"kernel": 1.0}, "log_scale": 2.0}, {"adapter": {"fc1": {"a": 3.0}}, "log_scale": 4.0})
    {'fc1': {'kernel': 1.0}, 'log_scale': 4.0, 'adapter': {'fc1': {'a': 3.0}}}
    """
    return unflatten(flatten(params) | flatten(adapter_params))


def _hash_beside(params: Params, leaves: Collection[str]) -> str:
    return params_hash({path: leaf for path, leaf in flatten(base_of(params)).items() if path not in leaves})

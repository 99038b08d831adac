"""The files of Hugging Face `peft`: one table from its tensors to an adapter's leaves, read in both directions."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

from mmjax.convert import ConversionError
from mmjax.paths import flatten, matches, unflatten
from mmjax.peft.adapter import Params

_PREFIX = "base_model.model."
_PROMPT = "prompt_embeddings"
# What marks an embedding, whose pair has names of its own in the files, and the same shapes as a Dense's.
EMBEDDINGS = ("**/*embed*", "**/wte", "**/wpe", "**/shared")

_DTYPES: Mapping[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


def _turn(tensor: np.ndarray) -> np.ndarray:
    """`[out, in]` to `[in, out]`, `[out, in, kh, kw]` to `[kh, kw, in, out]`."""
    return tensor.transpose(*range(2, tensor.ndim), 1, 0)


def _turn_back(leaf: np.ndarray) -> np.ndarray:
    return leaf.transpose(-1, -2, *range(leaf.ndim - 2))


class _Form(NamedTuple):
    """A kind of tensor: its ending in the files, the leaf, and how one becomes the other."""

    ending: str
    leaf: str
    read: Callable[[np.ndarray], np.ndarray]


# The first ending that a name has decides.
_FORMS = (
    _Form(".lora_A.weight", "a", _turn),
    _Form(".lora_B.weight", "b", lambda tensor: tensor.reshape(tensor.shape[:2]).T),
    _Form(".lora_embedding_A", "a", _turn),
    _Form(".lora_embedding_B", "b", _turn),
    _Form(".lora_magnitude_vector", "m", np.ravel),
    _Form(".ia3_l", "scale", np.ravel),
    _Form(".ln_tuning_layers.weight", "scale", np.asarray),
    _Form(".ln_tuning_layers.bias", "bias", np.asarray),
    _Form(".base_layer.bias", "bias", np.asarray),
    _Form(".bias", "bias", np.asarray),
    _Form(".weight", "kernel", _turn),
)


def load_hf_adapter(adapter_config: str, safetensors: Any) -> dict[str, Any]:
    """The leaves in the files of a Hugging Face adapter.

    | leaf | tensor | |
    |---|---|---|
    | `a`, `b` | `.lora_A.weight`, `.lora_B.weight`; embeddings `.lora_embedding_A`, `_B` | transposed, HWIO |
    | `m` | `.lora_magnitude_vector` | |
    | `scale_out`, `scale_in` | `.ia3_l` `[out, 1]`, `[1, in]` | |
    | `scale`, `bias` | `.ln_tuning_layers.weight`, `.bias` | |
    | `prompt/embedding` | `prompt_embeddings` | |
    | `bias` | `.bias`, `.base_layer.bias` | |
    | `kernel`, `scale` | `.weight` of `modules_to_save` with several axes, with one | transposed, HWIO |

    Args:
      adapter_config: content of `adapter_config.json`.
      safetensors: content of `adapter_model.safetensors`, as bytes or an array of uint8.

    Returns:
      Leaves nested under the names of the files' modules; dtypes are the files'.

    Raises:
      ConversionError: a tensor is of no kind above; all such are listed.

    Reference:
      huggingface/peft 0.21.2, `utils/save_and_load.py`.
    """
    config = json.loads(adapter_config)
    flat, problems = {}, []
    for name, tensor in read_tensors(safetensors).items():
        form = next((form for form in _FORMS if name.endswith(form.ending)), None)
        if name == _PROMPT:
            flat["prompt/embedding"] = tensor
        elif form is None or not name.startswith(_PREFIX):
            problems.append(f"{name} {tensor.shape} is of no kind that is known")
        else:
            path = name.removeprefix(_PREFIX).removesuffix(form.ending)
            leaf = form.leaf
            if form.ending == ".ia3_l":
                leaf = "scale_in" if _is_feedforward(path, tensor, config) else "scale_out"
            elif form.ending == ".weight" and tensor.ndim == 1:
                leaf, form = "scale", form._replace(read=np.asarray)
            flat[f"{path.replace('.', '/')}/{leaf}"] = np.ascontiguousarray(form.read(tensor))
    if problems:
        raise ConversionError("cannot read the adapter", problems)
    return unflatten(flat)


def save_hf_adapter(
    tree: Params, config: Mapping[str, Any] | str, *, embeddings: Sequence[str] = EMBEDDINGS
) -> tuple[str, bytes]:
    """The inverse of `load_hf_adapter`: a tree as the files of a Hugging Face adapter.

    Args:
      tree: leaves nested under the names of the Hugging Face model's modules, layers unrolled.
      config: of `adapter_config.json`; `peft_type`, and what the kind of adapter asks for.
      embeddings: patterns of the modules that are embeddings, whose pairs have names of their own.

    Returns:
      The contents of `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
      ConversionError: a leaf has no form in the files; all such are listed.

    >>> pair = {"a": np.zeros((3, 1), np.float32), "b": np.ones((1, 2), np.float32)}
    >>> files = save_hf_adapter({"layers": {"0": {"fc1": pair}}}, {"peft_type": "LORA", "r": 1, "lora_alpha": 1})
    >>> load_hf_adapter(*files)["layers"]["0"]["fc1"]["b"].tolist()
    [[1.0, 1.0]]
    """
    settings = json.loads(config) if isinstance(config, str) else dict(config)
    flat = {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}
    tensors, problems = {}, []
    for path, leaf in flat.items():
        site, _, name = path.rpartition("/")
        found = _tensor(site, name, leaf, flat, settings, embeddings)
        if found is None:
            problems.append(f"{path} {leaf.shape} has no form in these files; layers must be unrolled")
        else:
            ending, tensor = found
            key = ending if site == "prompt" else f"{_PREFIX}{site.replace('/', '.')}{ending}"
            tensors[key] = np.ascontiguousarray(tensor)
    if problems:
        raise ConversionError("cannot write the adapter", problems)
    return json.dumps(settings, indent=2, sort_keys=True) + "\n", save(tensors, metadata={"format": "pt"})


def _tensor(
    site: str,
    name: str,
    leaf: np.ndarray,
    flat: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    embeddings: Sequence[str],
) -> tuple[str, np.ndarray] | None:
    """The ending and the tensor of a leaf."""
    pair = flat.get(f"{site}/a")
    is_conv = pair is not None and pair.ndim == 4
    is_embedding = any(matches(site, pattern) for pattern in embeddings)
    norm = config.get("peft_type") == "LN_TUNING"
    match name, leaf.ndim:
        case "embedding", 2 if site == "prompt":
            return _PROMPT, leaf
        case "a", 2 | 4:
            return (".lora_embedding_A" if is_embedding else ".lora_A.weight"), _turn_back(leaf)
        case "b", 2 if is_conv:
            return ".lora_B.weight", leaf.T[:, :, None, None]
        case "b", 2:
            return (".lora_embedding_B" if is_embedding else ".lora_B.weight"), leaf.T
        case "m", 1:
            return ".lora_magnitude_vector", leaf[None, :, None, None] if is_conv else leaf
        case "scale_out", 1:
            return ".ia3_l", leaf[:, None]
        case "scale_in", 1:
            return ".ia3_l", leaf[None]
        case "scale", 1:
            return (".ln_tuning_layers.weight" if norm else ".weight"), leaf
        case "bias", 1 if norm:
            return ".ln_tuning_layers.bias", leaf
        case "bias", 1:
            return (".bias" if pair is None else ".base_layer.bias"), leaf
        case "kernel", 2 | 4:
            return ".weight", _turn_back(leaf)
    return None


def _is_feedforward(path: str, tensor: np.ndarray, config: Mapping[str, Any]) -> bool:
    if tensor.size > 1:
        return tensor.shape[0] == 1
    modules = config.get("feedforward_modules") or []
    if isinstance(modules, str):
        return re.fullmatch(modules, path) is not None
    return any(path == module or path.endswith(f".{module}") for module in modules)


def read_tensors(content: Any) -> dict[str, np.ndarray]:
    """The tensors in the bytes of a safetensors file, bfloat16 too, which its own reader for NumPy knows not.

    Raises:
      ConversionError: it is none.
    """
    data = content if isinstance(content, bytes) else np.asarray(content, np.uint8).tobytes()
    try:
        return {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in safetensors.deserialize(data)
        }
    except (safetensors.SafetensorError, KeyError) as error:
        raise ConversionError("cannot read the tensors", [f"no safetensors file of floats: {error}"]) from error

"""The modules of a sentence-transformers folder behind its encoder, and the fields of our model that say the same.

They are pooling, dense layers and a normalisation. A dense layer is in our terms the pooler of `pool="pooler"` (behind
the first token, with tanh), the projection (without activation), or one of an `MlpProjector` on top (with GELU but for
the last); each at most once, in this order.

Reference: huggingface/sentence-transformers 6.2.0, `base/modules` and `sentence_transformer/modules`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from mmjax.convert.errors import ConversionError
from mmjax.convert.source import read_json
from mmjax.models import DualEncoder, MlpProjector

# Our poolings and theirs; a pooler is a dense layer behind the first token.
POOLS = {"mean": "mean", "first": "cls", "last": "lasttoken", "pooler": "cls"}

# Activations of dense layers, by their names in `torch.nn`.
_ACTIVATIONS = {
    "Identity": "torch.nn.modules.linear.Identity",
    "GELU": "torch.nn.modules.activation.GELU",
    "Tanh": "torch.nn.modules.activation.Tanh",
}
# What a dense layer is, unless its config says otherwise.
_DEFAULTS: dict[str, Any] = {"bias": True, "activation_function": _ACTIVATIONS["Tanh"]}


class Modules(NamedTuple):
    """The folders of the modules."""

    encoder: Path
    pooling: Path
    dense: tuple[Path, ...]


class DenseModule(NamedTuple):
    """A dense layer: its widths, whether it has a bias, its activation."""

    inputs: int
    outputs: int
    bias: bool
    activation: str

    def to_config(self) -> dict[str, Any]:
        """The content of its `config.json`."""
        sizes = {"in_features": self.inputs, "out_features": self.outputs, "bias": self.bias}
        return {**sizes, "activation_function": _ACTIVATIONS[self.activation]}

    def __str__(self) -> str:
        return f"{self.activation} {self.inputs} -> {self.outputs}{'' if self.bias else ' without bias'}"


def read_modules(folder: Path) -> Modules:
    """The modules of `modules.json`.

    Raises:
      ConversionError: there are others among them.
    """
    listed = cast(Any, read_json(folder / "modules.json"))
    kinds = [module["type"].rsplit(".", 1)[-1] for module in listed]
    end = len(kinds) - (kinds[-1:] == ["Normalize"])
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:end]) - {"Dense"}:
        problem = f"modules.json lists {', '.join(kinds)}; expected Transformer, Pooling, Dense ..., Normalize"
        raise ConversionError(f"cannot read {folder}", [problem])
    encoder, pooling, *dense = (folder / module["path"] for module in listed[:end])
    return Modules(encoder, pooling, tuple(dense))


def read_pooling(folder: Path) -> str:
    """How a pooling module pools, in their terms.

    Raises:
      ConversionError: in a way that we have not, or in several at once.
    """
    config = read_json(folder / "config.json")
    # Folders of before version 6 have a switch for each way: pooling_mode_cls_token, pooling_mode_mean_tokens, ...
    switches = (name.removeprefix("pooling_mode_") for name, on in config.items() if "pooling_mode_" in name and on)
    found = config.get("pooling_mode") or [name.removesuffix("s").removesuffix("_token") for name in switches] or "mean"
    modes = [found] if isinstance(found, str) else found
    if len(modes) != 1 or modes[0] not in POOLS.values():
        expected = ", ".join(dict.fromkeys(POOLS.values()))
        raise ConversionError(
            f"cannot take over {folder}", [f"{folder.name} pools by {' and '.join(modes)}, expected one of {expected}"]
        )
    return modes[0]


def read_dense(folder: Path) -> DenseModule:
    """The dense layer of a module.

    Raises:
      ConversionError: the module does something else or more; all that it does is listed.
    """
    config = _DEFAULTS | read_json(folder / "config.json")
    activation = (config["activation_function"] or "Identity").rsplit(".", 1)[-1]
    problems = []
    if activation not in _ACTIVATIONS:
        problems.append(f"{folder.name} has activation {activation}, expected one of {', '.join(_ACTIVATIONS)}")
    if config.get("use_residual"):
        problems.append(f"{folder.name}.use_residual is True, expected False")
    problems += [
        f"{folder.name}.{field} is {config[field]!r}, expected 'sentence_embedding'"
        for field in ("module_input_name", "module_output_name")
        if config.get(field) not in (None, "sentence_embedding")
    ]
    if problems:
        raise ConversionError(f"cannot take over {folder}", problems)
    return DenseModule(config["in_features"], config["out_features"], config["bias"], activation)


def with_modules(model: DualEncoder, pooling: str, dense: Sequence[DenseModule]) -> DualEncoder:
    """The model with the pooling, projection and head that modules are.

    Args:
      model: has a text tower and nothing on top of it.
      pooling: as `read_pooling` gives it.
      dense: the layers behind it.

    Raises:
      ConversionError: there is no such sequence of dense layers in our model.
    """
    text, rest = cast(Any, model.text), list(dense)
    fields: dict[str, Any] = {"pool": next(ours for ours, theirs in POOLS.items() if theirs == pooling)}
    if fields["pool"] == "first" and rest and rest[0].activation == "Tanh":
        fields["pool"] = "pooler"
        rest.pop(0)
    if rest and rest[0].activation == "Identity":
        fields |= {"output_dim": rest[0].outputs, "proj_bias": rest[0].bias}
        rest.pop(0)
    head = MlpProjector(rest[0].outputs, depth=len(rest)) if rest else None
    model = model.clone(text=text.clone(**fields), text_head=head)
    if list(dense_layers(model).values()) != list(dense):
        expected = "a pooler (Tanh, of one width, behind cls), a projection (Identity), an MLP (GELU, Identity)"
        problem = f"behind {pooling} the dense layers are {', '.join(map(str, dense))}; expected, in order: {expected}"
        raise ConversionError("cannot take over the modules", [problem])
    return model


def dense_layers(model: DualEncoder) -> dict[str, DenseModule]:
    """The dense layers of a model behind its pooling, in order, by the paths of their parameters."""
    text, head = cast(Any, (model.text, model.text_head))
    layers: dict[str, tuple[int, bool, str]] = {}
    if text.pool == "pooler":
        layers["text/pooler"] = (text.width, True, "Tanh")
    if text.output_dim is not None:
        layers["text/proj"] = (text.output_dim, text.proj_bias, "Identity")
    depth = 0 if head is None else head.depth
    for i in range(depth):
        layers[f"text_head/dense_{i}"] = (head.features, True, "Identity" if i == depth - 1 else "GELU")
    widths = [text.width, *(outputs for outputs, _, _ in layers.values())]
    return {path: DenseModule(widths[i], *layer) for i, (path, layer) in enumerate(layers.items())}

"""The settings that most towers of `transformers` share in their `config.json`, and the fields of our towers."""

from collections.abc import Mapping
from typing import Any

ACTS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_FIELDS = {foreign: act for act, foreign in ACTS.items()} | {"gelu_new": "gelu_tanh"}


def tower_config(tower: Any) -> dict[str, Any]:
    """Sizes, activation and epsilon of a tower as a config has them.

    >>> from mmjax.models import VisionTransformer
    >>> config = tower_config(VisionTransformer(16, 768, 12, 12, None, act="gelu_tanh"))
    >>> config["intermediate_size"], config["hidden_act"], tower_fields(config)["act"]
    (3072, 'gelu_pytorch_tanh', 'gelu_tanh')
    """
    return {
        "hidden_size": tower.width,
        "intermediate_size": round(tower.mlp_ratio * tower.width),
        "num_hidden_layers": tower.num_layers,
        "num_attention_heads": tower.num_heads,
        "hidden_act": ACTS[tower.act],
        "layer_norm_eps": tower.ln_eps,
    }


def tower_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `tower_config`, for a config without `tower_problems` in which nothing is left out."""
    return {
        "width": config["hidden_size"],
        "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "act": _FIELDS[config["hidden_act"]],
        "ln_eps": config["layer_norm_eps"],
    }


def tower_problems(name: str, config: Mapping[str, Any]) -> list[str]:
    """Settings without counterpart: another activation, oblong pictures or patches, channels other than three.

    Args:
      name: how messages call the config.
      config: in which nothing is left out; those of text towers have no pictures.
    """
    problems = []
    if config["hidden_act"] not in _FIELDS:
        problems.append(f"{name}.hidden_act is {config['hidden_act']!r}, expected one of {list(_FIELDS)}")
    for field in ("image_size", "patch_size"):
        if not isinstance(config.get(field, 0), int):
            problems.append(f"{name}.{field} is {config[field]}, expected one number")
    if config.get("num_channels", 3) != 3:
        problems.append(f"{name}.num_channels is {config['num_channels']}, expected 3")
    return problems

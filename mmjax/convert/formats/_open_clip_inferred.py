"""The config of an open_clip state dict that comes without one.

Reference: mlfoundations/open_clip 3.3.0, `build_model_from_openai_state_dict` in `model.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.convert.errors import ConversionError
from mmjax.convert.formats._vit_shapes import count_layers, grid_side, missing_tensors, usual_heads, width_ratio

# What OpenAI's state dicts hold beside the weights, which are those of models with QuickGELU.
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")

_IMAGE, _TEXT = "visual.transformer.resblocks", "transformer.resblocks"
_NEEDED = (
    "visual.conv1.weight",
    "visual.positional_embedding",
    f"{_IMAGE}.0.mlp.c_fc.weight",
    "token_embedding.weight",
    "positional_embedding",
    f"{_TEXT}.0.mlp.c_fc.weight",
    "text_projection",
)


def inferred_config(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The `model_cfg` of a state dict in OpenAI's layout: its shapes, and numbers of heads as usual for its widths.

    Args:
      tensors: those of the text tower without `text.` before their names.

    Raises:
      ConversionError: tensors are missing, or the shapes do not say enough.
    """
    if problems := missing_tensors(tensors, _NEEDED):
        raise _not_inferred(problems)
    conv, positions, image_mlp, embedding, text_positions, text_mlp, projection = (tensors[name] for name in _NEEDED)
    (width, _, _, patch_size), (vocab_size, text_width) = conv.shape, embedding.shape
    side, heads, text_heads = grid_side(len(positions) - 1), usual_heads(width), text_width // 64
    if side is None:
        problems.append(f"{_NEEDED[1]} has {len(positions)} rows, expected 1 and a square")
    problems += [
        f"width {size} of the {name} tower does not say how many heads there are"
        for name, size, count in (("image", width, heads), ("text", text_width, text_heads))
        if not count or size % count
    ]
    if side is None or problems:
        raise _not_inferred(problems)
    return {
        "embed_dim": projection.shape[1],
        "quick_gelu": all(name in tensors for name in OPENAI_SIZES),
        "init_logit_bias": -10.0 if "logit_bias" in tensors else None,
        "vision_cfg": {
            "image_size": patch_size * side,
            "patch_size": patch_size,
            "width": width,
            "layers": count_layers(tensors, _IMAGE),
            "head_width": width // heads,
            "mlp_ratio": width_ratio(len(image_mlp), width),
            "no_ln_pre": "visual.ln_pre.weight" not in tensors,
            "ls_init_value": 1e-5 if f"{_IMAGE}.0.ls_1.gamma" in tensors else None,
        },
        "text_cfg": {
            "context_length": len(text_positions),
            "vocab_size": vocab_size,
            "width": text_width,
            "heads": text_heads,
            "layers": count_layers(tensors, _TEXT),
            "mlp_ratio": width_ratio(len(text_mlp), text_width),
        },
    }


def _not_inferred(problems: list[str]) -> ConversionError:
    fix = "put the open_clip_config.json of the model beside its weights"
    return ConversionError("the settings of the model do not show in its tensors", [*problems, fix])

"""Reasons why a format cannot express a bundle, which formats have in common."""

from collections.abc import Collection, Mapping
from typing import Any

from flax import linen as nn

from mmjax.convert.bundle import Bundle
from mmjax.data import Tokenizer


def tower_obstacles(
    bundle: Bundle,
    name: str,
    kind: type[nn.Module],
    *,
    format: str,
    fixed: Mapping[str, Any],
    acts: Collection[str],
) -> list[str]:
    """Settings of a tower that a format cannot express.

    Args:
      bundle: has the tower.
      name: "image" or "text".
      kind: class that it has to be of; of another, nothing more is looked at.
      format: name of the format.
      fixed: fields of the tower -> what the format takes for granted.
      acts: activations that the format has.
    """
    tower: Any = getattr(bundle.model, name)
    if not isinstance(tower, kind):
        return [f"{name} is a {type(tower).__name__}, expected a {kind.__name__}"]
    problems = []
    if getattr(bundle.model, f"{name}_head") is not None:
        problems.append(f"{format} has no place for {name}_head")
    problems += [
        f"{name}.{field} is {found!r}, {format} has {value!r}"
        for field, value in fixed.items()
        if (found := getattr(tower, field)) != value
    ]
    if tower.act not in acts:
        problems.append(f"{name}.act is {tower.act!r}, expected one of {', '.join(map(repr, acts))}")
    return problems


def picture_obstacles(bundle: Bundle, *, format: str) -> list[str]:
    """No preprocessing, or one for another size than the table of positions."""
    if bundle.image is None:
        return [f"no preprocessing of pictures is known, which {format} holds"]
    size, prepared = getattr(bundle.model.image, "image_size", None), bundle.image.size
    if size in (None, prepared, (prepared, prepared)):
        return []
    return [f"image.image_size is {size}, but the pictures are prepared at {prepared} pixels"]


def padding_obstacles(tokenizer: Tokenizer) -> list[str]:
    """For a tower that reads its padding: `transformers` pads with the end token where the padding is not special."""
    padding = tokenizer.backend.get_added_tokens_decoder().get(tokenizer.pad_id)
    if tokenizer.pad_id == tokenizer.eos_id or (padding is not None and padding.special):
        return []
    name = tokenizer.backend.id_to_token(tokenizer.pad_id)
    return [f"texts are padded with {name!r}, which is not special: `transformers` pads with the end token"]


def token_obstacles(bundle: Bundle, *, format: str) -> list[str]:
    """No tokenizer, or one that the text tower does not fit."""
    text: Any = bundle.model.text
    problems = []
    if bundle.tokenizer is None:
        problems.append(f"no tokenizer is known, which {format} holds")
    elif bundle.tokenizer.vocab_size > text.vocab_size:
        ids = bundle.tokenizer.vocab_size
        problems.append(f"the tokenizer has {ids} ids, but text.vocab_size is {text.vocab_size}")
    if bundle.context_length is None or bundle.context_length > text.context_length:
        problems.append(f"context_length is {bundle.context_length}, but text.context_length is {text.context_length}")
    return problems

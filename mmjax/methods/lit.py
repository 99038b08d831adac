"""LiT: a tower is locked, the other learns to read it; or both are, and heads on top of them learn to meet.

Reference: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", 2022. Losses checked against
mlfoundations/open_clip at 89fb801.
"""

from collections.abc import Sequence
from typing import Any, cast

import jax

from mmjax._checks import check_choice
from mmjax.config import Section, call
from mmjax.method import Batch, Method, Params, SplitLoss, Stats
from mmjax.methods import _towers
from mmjax.methods.clip import clip
from mmjax.models import DualEncoder, build_dual_encoder, without_heads


def build(config: Section) -> Method:
    """The method of `config.method` (`loss`, `locked`) on the towers of `config.model`."""
    settings = dict(config.method)
    settings.pop("name")
    return call(lit, settings, call(build_dual_encoder, config.model))


def lit(model: DualEncoder, *, loss: str = "softmax", locked: Sequence[str] = ("image",)) -> Method:
    """CLIP's contrast with towers locked: neither gradient nor dropout in them. Heads train always.

    What a locked tower gives is `batch["image_features"]` or `batch["text_features"]` where a feature bank holds it,
    and the tower does not run; else it is computed from the batch. The parameters hold the tower in both cases: what is
    evaluated and exported is the whole model.

    Args:
      model: the two towers; parameters of locked ones come from elsewhere (`config.init_from`).
      loss: "softmax" (CLIP) or "sigmoid" (SigLIP).
      locked: "image", "text" or both.

    Returns:
      The method; its metrics are those of `clip`.

    Raises:
      ValueError: see `clip`; or nothing is locked, or nothing but the scale would train.
    """
    contrast = clip(model, loss=loss)
    for name in locked:
        check_choice("lit", "locked", name, _towers.TOWERS)
    if not locked:
        raise ValueError("lit: locked is empty, so that both towers would train; that is the method 'clip'")
    if set(locked) == set(_towers.TOWERS) and model.image_head is None and model.text_head is None:
        raise ValueError(
            "lit: both towers are locked and there is no head, so that nothing but the scale would train; "
            "set model.image_head and model.text_head, or lock one tower"
        )
    towers = _towers.encoders(without_heads(model))

    def inputs(params: Params, batch: Batch, name: str) -> dict[str, Any]:
        bank = f"{name}_features"
        if name in locked:
            return {bank: jax.lax.stop_gradient(batch[bank] if bank in batch else towers[name](params, batch))}
        if bank in batch:
            raise ValueError(f"lit: the batch has {bank} of a bank, but the {name} tower trains; lock it, or drop them")
        return _towers.tower_inputs(batch, name)

    def embed(params: Params, stats: Stats, batch: Batch, rng: jax.Array, step: jax.Array):
        both = {**inputs(params, batch, "image"), **inputs(params, batch, "text")}
        output, _ = model.apply({"params": params}, **both, deterministic=False, rngs={"dropout": rng})
        return output.image_embeds, output.text_embeds

    head = cast(SplitLoss, contrast.loss).head
    partition = (*((f"{name}/**", False) for name in _towers.TOWERS if name in locked), ("**", True))
    return contrast._replace(loss=SplitLoss(embed, head), partition=partition)

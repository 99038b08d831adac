"""CLIP and SigLIP: two towers, one contrast over the batch.

Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021; Zhai et al.,
"Sigmoid Loss for Language Image Pre-Training", 2023. Losses checked against mlfoundations/open_clip at 89fb801.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mmjax import losses, parallel
from mmjax._checks import check_choice
from mmjax.config import Section, call
from mmjax.method import Aux, Batch, Method, Params, SplitLoss, Stats, Term, weighted_sum
from mmjax.methods import _towers
from mmjax.models import DualEncoder, build_dual_encoder


def build(config: Section) -> Method:
    """The method of `config.method` (`loss`) on the towers of `config.model`."""
    settings = dict(config.method)
    settings.pop("name")
    return call(clip, settings, call(build_dual_encoder, config.model))


def clip(model: DualEncoder, *, loss: str = "softmax") -> Method:
    """Image-text contrast of a dual encoder.

    Args:
      model: the two towers; its `bias` exists only for the sigmoid loss.
      loss: "softmax" (CLIP) or "sigmoid" (SigLIP).

    Returns:
      The method; metrics `scale` (the multiplier), `log_scale` (the parameter) and, for SigLIP, `bias`.

    Raises:
      ValueError: an unknown loss, a model without one of the towers, or one whose bias the loss would leave unused or
        lack.
    """
    check_choice("clip", "loss", loss, ("softmax", "sigmoid"))
    _towers.check_towers("clip", model)
    if model.use_bias != (loss == "sigmoid"):
        raise ValueError(
            f"clip: the {loss} loss {'needs' if loss == 'sigmoid' else 'never uses'} a learned bias; "
            f"set model.use_bias={loss == 'sigmoid'}"
        )

    def embed(params: Params, stats: Stats, batch: Batch, rng: jax.Array, step: jax.Array):
        inputs = {**_towers.tower_inputs(batch, "image"), **_towers.tower_inputs(batch, "text")}
        output, _ = model.apply({"params": params}, **inputs, deterministic=False, rngs={"dropout": rng})
        return output.image_embeds, output.text_embeds

    def head(params: Params, stats: Stats, embeddings: Any, batch: Batch, rng: jax.Array, step: jax.Array):
        scale = jnp.exp(params["log_scale"])
        metrics = {"scale": scale, "log_scale": params["log_scale"]}
        if loss == "softmax":
            contrast = parallel.sharded(losses.clip_loss)(*embeddings, scale=scale)
        else:
            contrast = parallel.sharded(losses.siglip_loss)(*embeddings, scale=scale, bias=params["bias"])
            metrics["bias"] = params["bias"]
        terms = {"contrast": Term(jnp.mean(contrast))}
        return weighted_sum(terms), Aux(terms, metrics, stats)

    return Method(_towers.initializer(model), SplitLoss(embed, head), _towers.encoders(model))

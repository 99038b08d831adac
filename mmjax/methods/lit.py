"""LiT: the image tower is locked, a text tower learns to read it.

Reference: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", 2022. Losses checked against
mlfoundations/open_clip at 89fb801.
"""

from typing import cast

import jax
import jax.numpy as jnp

from mmjax.config import Section, call
from mmjax.method import Batch, Method, Params, SplitLoss, Stats, Variables
from mmjax.methods.clip import clip
from mmjax.models import DualEncoder, VisionTransformer, build_dual_encoder


def build(config: Section) -> Method:
    """The method of `config.method` (`loss`) on the towers of `config.model`."""
    settings = dict(config.method)
    settings.pop("name")
    return call(lit, settings, call(build_dual_encoder, config.model))


def lit(model: DualEncoder, *, loss: str = "softmax") -> Method:
    """CLIP's contrast with the image tower locked: neither gradient nor dropout in it.

    The image embeddings are `batch["image_features"]` where a feature bank gives them, and the tower does not run;
    else they are computed from `batch["image"]`. The parameters hold the tower in both cases: what is evaluated and
    exported is the whole model.

    Args:
      model: the two towers; the image tower's parameters come from elsewhere (`config.init_from`).
      loss: "softmax" (CLIP) or "sigmoid" (SigLIP).

    Returns:
      The method; its metrics are those of `clip`.

    Raises:
      ValueError: see `clip`.
    """
    contrast = clip(model, loss=loss)
    encode_image = contrast.encoders["image"]

    def init(rng: jax.Array, batch: Batch) -> Variables:
        if "image" not in batch:
            batch = {**batch, "image": _blank(cast(VisionTransformer, model.image))}
        return contrast.init(rng, batch)

    def embed(params: Params, stats: Stats, batch: Batch, rng: jax.Array, step: jax.Array):
        image = batch["image_features"] if "image_features" in batch else encode_image(params, batch)
        output, _ = model.apply(
            {"params": params},
            token_ids=batch["text"],
            text_mask=batch["text_mask"],
            deterministic=False,
            rngs={"dropout": rng},
        )
        return jax.lax.stop_gradient(image), output.text_embeds

    head = cast(SplitLoss, contrast.loss).head
    return contrast._replace(init=init, loss=SplitLoss(embed, head), partition=(("image/**", False), ("**", True)))


def _blank(tower: VisionTransformer) -> jax.Array:
    size = tower.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    return jnp.zeros((1, height, width, 3))

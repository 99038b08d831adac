"""Losses: arrays in, one value an example out; the caller reduces."""

from mmjax.losses.captioning import masked_token_cross_entropy
from mmjax.losses.contrastive import clip_loss, info_nce, similarity_info_nce
from mmjax.losses.distillation import clip_distillation_loss
from mmjax.losses.filip import filip_loss
from mmjax.losses.sigmoid import siglip_loss

__all__ = [
    "clip_distillation_loss",
    "clip_loss",
    "filip_loss",
    "info_nce",
    "masked_token_cross_entropy",
    "siglip_loss",
    "similarity_info_nce",
]

"""Flax Linen modules: arrays -> (output, intermediates)."""

from mmjax.models.attention import Attention
from mmjax.models.block import Block, CrossAttentionBlock
from mmjax.models.dual_encoder import DualEncoder, DualEncoderOutput
from mmjax.models.encoder import Encoder
from mmjax.models.mlp import Mlp
from mmjax.models.pooling import AttentionalPooler, MapHead
from mmjax.models.presets import PRESETS, Preset, build_dual_encoder
from mmjax.models.site import Site
from mmjax.models.stacking import stack_layers, unstack_layers
from mmjax.models.text import TextTransformer
from mmjax.models.vision import VisionTransformer

__all__ = [
    "PRESETS",
    "Attention",
    "AttentionalPooler",
    "Block",
    "CrossAttentionBlock",
    "DualEncoder",
    "DualEncoderOutput",
    "Encoder",
    "MapHead",
    "Mlp",
    "Preset",
    "Site",
    "TextTransformer",
    "VisionTransformer",
    "build_dual_encoder",
    "stack_layers",
    "unstack_layers",
]

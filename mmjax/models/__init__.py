"""Flax Linen modules: arrays -> (output, intermediates)."""

from mmjax.models.attention import Attention
from mmjax.models.bert import BertEncoder
from mmjax.models.block import Block, CrossAttentionBlock
from mmjax.models.build import build_dual_encoder, describe_model
from mmjax.models.dual_encoder import DualEncoder, DualEncoderOutput, without_heads
from mmjax.models.encoder import Encoder
from mmjax.models.mlp import Mlp
from mmjax.models.pooling import AttentionalPooler, MapHead
from mmjax.models.post_norm import PostNormLayer
from mmjax.models.presets import PRESETS, Preset
from mmjax.models.projector import MlpProjector
from mmjax.models.site import Site
from mmjax.models.stacking import stack_layers, unstack_layers
from mmjax.models.text import TextTransformer
from mmjax.models.vision import VisionTransformer

__all__ = [
    "PRESETS",
    "Attention",
    "AttentionalPooler",
    "BertEncoder",
    "Block",
    "CrossAttentionBlock",
    "DualEncoder",
    "DualEncoderOutput",
    "Encoder",
    "MapHead",
    "Mlp",
    "MlpProjector",
    "PostNormLayer",
    "Preset",
    "Site",
    "TextTransformer",
    "VisionTransformer",
    "build_dual_encoder",
    "describe_model",
    "stack_layers",
    "unstack_layers",
    "without_heads",
]

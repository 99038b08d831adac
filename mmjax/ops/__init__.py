"""Operations: arrays to arrays, no parameters."""

from mmjax.ops.activations import gelu, quick_gelu
from mmjax.ops.attention import attend, attention_probabilities
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.patches import patchify
from mmjax.ops.pooling import pool_text
from mmjax.ops.positions import resize_positions, sincos_position_2d
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity
from mmjax.ops.zero_shot import zero_shot_classifier

__all__ = [
    "at_least_float32",
    "attend",
    "attention_probabilities",
    "cosine_similarity",
    "gelu",
    "l2_normalize",
    "patchify",
    "pool_text",
    "quick_gelu",
    "resize_positions",
    "sincos_position_2d",
    "zero_shot_classifier",
]

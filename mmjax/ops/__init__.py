"""Operations: arrays to arrays, no parameters."""

from mmjax.ops.activations import gelu, quick_gelu
from mmjax.ops.attention import attend, attention_probabilities, fused_attention, has_flash_attention
from mmjax.ops.late_interaction import late_interaction_scores, prompt_ensemble_scores, select_tokens
from mmjax.ops.normalize import l2_normalize, layer_norm
from mmjax.ops.patches import patchify
from mmjax.ops.pooling import pool_text
from mmjax.ops.positions import resize_positions, sincos_position_2d
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity
from mmjax.ops.token_dropping import drop_tokens
from mmjax.ops.zero_shot import zero_shot_classifier

__all__ = [
    "at_least_float32",
    "attend",
    "attention_probabilities",
    "cosine_similarity",
    "drop_tokens",
    "fused_attention",
    "gelu",
    "has_flash_attention",
    "l2_normalize",
    "late_interaction_scores",
    "layer_norm",
    "patchify",
    "pool_text",
    "prompt_ensemble_scores",
    "quick_gelu",
    "resize_positions",
    "select_tokens",
    "sincos_position_2d",
    "zero_shot_classifier",
]

"""A linear classifier out of prompts alone."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_rank
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.precision import at_least_float32


def zero_shot_classifier(prompt_embeds: ArrayLike) -> jax.Array:
    """Class weights from prompt ensembles.

    `w_c = n(mean_p n(prompt_embeds_cp))`, where `n = l2_normalize`

    Scores of images are `scale * cosine_similarity(image_embeds, w)`.

    Args:
      prompt_embeds: `[C, P, D]` text embeddings of P prompts for each of C classes, un-normalised.

    Returns:
      `[C, D]` float32, rows of unit length.

    Raises:
      ValueError: `prompt_embeds` does not have three axes.

    >>> classifier = zero_shot_classifier(jnp.array([[[0.0, 2.0], [3.0, 0.0]]]))
    >>> [f"{weight:.3f}" for weight in classifier[0]]
    ['0.707', '0.707']

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
      section 3.1.4; mlfoundations/open_clip at 89fb801, `build_zero_shot_classifier`.
    """
    check_rank("zero_shot_classifier", rank=3, prompt_embeds=prompt_embeds)
    return l2_normalize(jnp.mean(l2_normalize(at_least_float32(prompt_embeds)), axis=1))

"""Sigmoid contrast: every pair of the batch is a yes-or-no question of its own."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_rank, check_same_axis, check_same_shape
from mmjax.ops.similarity import cosine_similarity


def siglip_loss(
    image_embeds: ArrayLike,
    text_embeds: ArrayLike,
    *,
    scale: float | jax.Array,
    bias: float | jax.Array,
    negative_only: bool = False,
) -> jax.Array:
    """SigLIP's loss: a logistic regression over all pairs, without a normaliser across the batch.

    `value_i = sum_j softplus(-y_ij (S_ij + bias))`, where `S = scale * cosine_similarity(image_embeds,
    text_embeds)` and y is +1 on the diagonal, -1 elsewhere

    The mean over i divides the sum over all pairs by B, not by B^2.

    Shards: the values of disjoint blocks of texts add up. Pass the own block plainly and those of other
    devices with `negative_only`; nothing has to be gathered.

    Args:
      image_embeds: `[B, D]` un-normalised.
      text_embeds: `[B, D]` un-normalised, row i belongs to image i; `[N, D]` with `negative_only`.
      scale: `[]` multiplier of the cosines, positive; learned as its logarithm, from log 10.
      bias: `[]` added to every logit; learned, from -10.
      negative_only: whether no text belongs to any of the images.

    Returns:
      `[B]` float32, at least 0; the mean is the usual loss.

    Raises:
      ValueError: shapes disagree.

    >>> embeds = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> [f"{value:.3f}" for value in siglip_loss(embeds, embeds, scale=10.0, bias=-5.0)]
    ['0.013', '0.013']

    Reference:
      Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2, algorithm 1;
      mlfoundations/open_clip at 89fb801, `SigLipLoss`.
    """
    check_rank("siglip_loss", rank=2, image_embeds=image_embeds, text_embeds=text_embeds)
    if negative_only:
        check_same_axis("siglip_loss", axis=1, image_embeds=image_embeds, text_embeds=text_embeds)
    else:
        check_same_shape("siglip_loss", image_embeds=image_embeds, text_embeds=text_embeds)
    signed = scale * cosine_similarity(image_embeds, text_embeds) + bias
    if not negative_only:
        signed = jnp.where(jnp.eye(len(signed), dtype=bool), -signed, signed)
    return jnp.sum(jax.nn.softplus(signed), axis=1)

"""Sigmoid contrast: every pair of the batch is a yes-or-no question of its own."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_rank, check_same_axis, check_same_shape
from mmjax.losses._pairs import PairLoss, Side, for_each, layout, reduce_pairs
from mmjax.losses._reductions import SIGMOID, Logits
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity, inner_products
from mmjax.parallel.collectives import AxisName, first_row


def siglip_loss(
    image_embeds: ArrayLike,
    text_embeds: ArrayLike,
    *,
    scale: float | jax.Array,
    bias: float | jax.Array,
    negative_only: bool = False,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
) -> jax.Array:
    """SigLIP's loss: a logistic regression over all pairs, without a normaliser across the batch.

    `value_i = sum_j softplus(-y_ij (S_ij + bias))`, where `S = scale * cosine_similarity(image_embeds,
    text_embeds)` and y is +1 on the diagonal, -1 elsewhere

    The mean over i divides the sum over all pairs by B, not by B^2. The values of disjoint sets of texts add up: the
    images' own plainly, others with `negative_only`. In blocks, S never exists and the memory of value and gradient is
    linear in B; over devices, texts go from neighbour to neighbour and nothing is gathered.

    Args:
      image_embeds: `[B, D]` un-normalised.
      text_embeds: `[B, D]` un-normalised, row i belongs to image i; `[N, D]` with `negative_only`.
      scale: `[]` multiplier of the cosines, positive; learned as its logarithm, from log 10.
      bias: `[]` added to every logit; learned, from -10.
      negative_only: whether no text belongs to any of the images.
      block_size: rows and columns of S held at a time, any number; 0 holds all, None all up to B = 2048, then 1024.
      axis_name: inside `jax.shard_map`, the mesh axis that splits the batch: the rows are this device's, and the images
        are held against the texts of all devices.

    Returns:
      `[B]` float32, at least 0; the mean (over all devices) is the usual loss.

    Raises:
      ValueError: shapes disagree, or `block_size` is negative.

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
    num_images, num_texts = jnp.shape(image_embeds)[0], jnp.shape(text_embeds)[0]
    where = layout("siglip_loss", num_images, num_texts, block_size=block_size, axis_name=axis_name)
    if where is not None:
        places = None if negative_only else first_row(num_images, axis_name) + jnp.arange(num_images)
        images, texts = l2_normalize(at_least_float32(image_embeds)), l2_normalize(at_least_float32(text_embeds))
        (of_images,) = reduce_pairs(
            PairLoss(_questions, SIGMOID, both=False),
            where,
            Side((scale * images, for_each(images, bias)), places),
            Side(texts, places),
        )
        return of_images
    signed = scale * cosine_similarity(image_embeds, text_embeds) + bias
    if not negative_only:
        signed = jnp.where(jnp.eye(len(signed), dtype=bool), -signed, signed)
    return jnp.sum(jax.nn.softplus(signed), axis=1)


def _questions(images: Side, texts: Side) -> Logits:
    embeds, bias = images.learned
    logits = inner_products(embeds, texts.learned) + bias[:, None]
    return Logits(logits, jnp.bool_(False) if images.given is None else images.given[:, None] == texts.given)

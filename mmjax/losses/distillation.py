"""A student's similarities taught by a teacher's."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_rank, check_same_axis, check_same_shape
from mmjax.losses._pairs import PairLoss, Side, layout, reduce_pairs
from mmjax.losses._reductions import TAUGHT, TaughtLogits
from mmjax.ops.normalize import l2_normalize
from mmjax.ops.precision import at_least_float32
from mmjax.ops.similarity import cosine_similarity, inner_products
from mmjax.parallel.collectives import AxisName


def clip_distillation_loss(
    image_embeds: ArrayLike,
    text_embeds: ArrayLike,
    teacher_image_embeds: ArrayLike,
    teacher_text_embeds: ArrayLike,
    *,
    scale: float | jax.Array,
    teacher_scale: float | jax.Array,
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    exchange: str = "ring",
) -> jax.Array:
    """Affinity mimicking: the student's image-text softmaxes follow the teacher's, in both directions.

    `value_i = -1/2 sum_j (softmax_j(R_ij) log softmax_j(S_ij) + softmax_j(R_ji) log softmax_j(S_ji))`, where
    S and R are the student's and the teacher's `scale * cosine_similarity(image_embeds, text_embeds)`

    A cross-entropy: its minimum is the teacher's entropy, not 0. The teacher gets no gradient. In blocks, S and R never
    exist and the memory of value and gradient is linear in B.

    Args:
      image_embeds: `[B, D]` student's, un-normalised.
      text_embeds: `[B, D]` student's, un-normalised.
      teacher_image_embeds: `[B, E]` teacher's, un-normalised; E and D may differ.
      teacher_text_embeds: `[B, E]` teacher's, un-normalised.
      scale: `[]` multiplier of the student's cosines, positive.
      teacher_scale: `[]` multiplier of the teacher's cosines, positive.
      block_size: rows and columns of S and R held at a time, any number; 0 holds all, None all up to B = 2048, then
        1024.
      axis_name: inside `jax.shard_map`, the mesh axis that splits the batch: the B rows are this device's, and are
        compared with those of all devices.
      exchange: how devices see each other's texts: "ring" (one device's at a time) or "all_gather".

    Returns:
      `[B]` float32, at least 0; the mean (over all devices) is the usual loss.

    Raises:
      ValueError: shapes disagree, or a setting is none of the above.

    >>> student, teacher = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.ones((2, 3))
    >>> loss = clip_distillation_loss(student, student, teacher, teacher, scale=1.0, teacher_scale=1.0)
    >>> [f"{value:.3f}" for value in loss]
    ['0.813', '0.813']

    Reference:
      Wu et al., "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance", ICCV 2023,
      section 3.1; mlfoundations/open_clip at 89fb801, `DistillClipLoss`.
    """
    name = "clip_distillation_loss"
    student = {"image_embeds": image_embeds, "text_embeds": text_embeds}
    teacher = {"teacher_image_embeds": teacher_image_embeds, "teacher_text_embeds": teacher_text_embeds}
    check_rank(name, rank=2, **student, **teacher)
    check_same_shape(name, **student)
    check_same_shape(name, **teacher)
    check_same_axis(name, axis=0, image_embeds=image_embeds, teacher_image_embeds=teacher_image_embeds)
    batch = jnp.shape(image_embeds)[0]
    where = layout(name, batch, batch, block_size=block_size, axis_name=axis_name, exchange=exchange)
    if where is not None:
        images, texts, teacher_images, teacher_texts = (
            l2_normalize(at_least_float32(embeds)) for embeds in (*student.values(), *teacher.values())
        )
        of_images, of_texts = reduce_pairs(
            PairLoss(_taught, TAUGHT, both=True),
            where,
            Side(scale * images, teacher_scale * teacher_images),
            Side(texts, teacher_texts),
        )
        return 0.5 * (of_images + of_texts)
    logits = scale * cosine_similarity(image_embeds, text_embeds)
    targets = jax.lax.stop_gradient(teacher_scale * cosine_similarity(teacher_image_embeds, teacher_text_embeds))

    def cross_entropy(axis: int) -> jax.Array:
        return -jnp.sum(jax.nn.softmax(targets, axis=axis) * jax.nn.log_softmax(logits, axis=axis), axis=axis)

    return 0.5 * (cross_entropy(1) + cross_entropy(0))


def _taught(rows: Side, columns: Side) -> TaughtLogits:
    return TaughtLogits(inner_products(rows.learned, columns.learned), inner_products(rows.given, columns.given))

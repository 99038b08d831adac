"""Softmax contrast of token sets by late interaction."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_rank, check_same_axis
from mmjax.losses._pairs import PairLoss, Side, for_each, layout, reduce_pairs
from mmjax.losses._reductions import SOFTMAX, Logits
from mmjax.ops.late_interaction import late_interaction_scores, select_tokens
from mmjax.ops.precision import at_least_float32
from mmjax.parallel.collectives import AxisName, first_row


def filip_loss(
    image_tokens: ArrayLike,
    text_tokens: ArrayLike,
    *,
    scale: float | jax.Array,
    image_mask: ArrayLike | None = None,
    text_mask: ArrayLike | None = None,
    top_k: int | None = None,
    rule: str = "pair_sum",
    block_size: int | None = None,
    axis_name: AxisName | None = None,
    exchange: str = "ring",
) -> jax.Array:
    """FILIP's loss: each image among the texts and each text among the images, compared token by token.

    `value_i = -1/2 (log softmax_j(V_ij)[i] + log softmax_j(W_ij)[i])`, where
    `V = scale * late_interaction_scores(image_tokens, text_keys)`,
    `W = scale * late_interaction_scores(text_tokens, image_keys)`

    W is not V transposed: in V patches look for their words, in W words for their patches. The keys are all tokens, or
    of each sample the `top_k` that `select_tokens` finds; queries are always all tokens. In blocks, neither the cosines
    of all token pairs nor V and W ever exist.

    Args:
      image_tokens: `[B, T, D]` un-normalised.
      text_tokens: `[B, S, D]` un-normalised, sample i belongs to image i.
      scale: `[]` multiplier of the scores, positive; learned as its logarithm, from log(1/0.07).
      image_mask: `[B, T]` bool, True = valid. None: all are.
      text_mask: `[B, S]` bool, True = valid. None: all are, padding too, as in the authors' benchmark.
      top_k: keys of a sample; None keeps all tokens.
      rule: how keys are selected, "pair_sum" or "batch_max" (of this device's samples).
      block_size: images and texts compared at a time, any number; 0 compares all, None all up to 2048^2 token pairs,
        then so many as make 1024^2.
      axis_name: inside `jax.shard_map`, the mesh axis that splits the batch: the B samples are this device's, and are
        contrasted with those of all devices.
      exchange: how devices see each other's keys: "ring" (one device's at a time) or "all_gather".

    Returns:
      `[B]` float32, at least 0; the mean (over all devices) is the usual loss. 0 for B = 1.

    Raises:
      ValueError: shapes disagree, or a setting is none of the above.

    >>> tokens = jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 2.0]]])
    >>> [f"{value:.3f}" for value in filip_loss(tokens, tokens, scale=1.0)]
    ['0.313', '0.313']

    Reference:
      Yao et al., "FILIP: Fine-grained Interactive Language-Image Pre-Training", ICLR 2022, section 3.1;
      Sense-GVT/DeCLIP at 5d99a85, `get_weighted_dense_logits`.
    """
    check_rank("filip_loss", rank=3, image_tokens=image_tokens, text_tokens=text_tokens)
    check_same_axis("filip_loss", axis=0, image_tokens=image_tokens, text_tokens=text_tokens)
    check_same_axis("filip_loss", axis=-1, image_tokens=image_tokens, text_tokens=text_tokens)
    images, texts = (at_least_float32(image_tokens), image_mask), (at_least_float32(text_tokens), text_mask)
    image_keys, text_keys = images, texts
    if top_k is not None:
        image_keys = _selected(images, texts, k=top_k, rule=rule)
        text_keys = _selected(texts, images, k=top_k, rule=rule)
    batch = len(images[0])
    places = first_row(batch, axis_name) + jnp.arange(batch)

    def of_queries(queries: tuple, keys: tuple) -> jax.Array:
        where = layout(
            "filip_loss",
            batch,
            batch,
            block_size=block_size,
            axis_name=axis_name,
            exchange=exchange,
            pair_size=queries[0].shape[1] * keys[0].shape[1],
        )
        (query_tokens, query_mask), (key_tokens, key_mask) = queries, keys
        if where is None:
            scores = late_interaction_scores(
                query_tokens, key_tokens, query_mask=query_mask, key_mask=key_mask, block_size=0
            )
            return jax.nn.logsumexp(scale * scores, axis=1) - jnp.diagonal(scale * scores)
        (values,) = reduce_pairs(
            PairLoss(_contrast, SOFTMAX, both=False),
            where,
            Side((query_tokens, for_each(query_tokens, scale)), (places, query_mask)),
            Side(key_tokens, (places, key_mask)),
        )
        return values

    return 0.5 * (of_queries(images, text_keys) + of_queries(texts, image_keys))


def _selected(side: tuple, other: tuple, *, k: int, rule: str) -> tuple[jax.Array, jax.Array | None]:
    (tokens, mask), (references, reference_mask) = side, other
    index = select_tokens(tokens, references, k=k, rule=rule, token_mask=mask, reference_mask=reference_mask)
    kept = jnp.take_along_axis(tokens, index[..., None], axis=1)
    return kept, None if mask is None else jnp.take_along_axis(jnp.asarray(mask), index, axis=1)


def _contrast(queries: Side, keys: Side) -> Logits:
    (tokens, scale), (query_places, query_mask) = queries
    (key_places, key_mask) = keys.given
    scores = late_interaction_scores(tokens, keys.learned, query_mask=query_mask, key_mask=key_mask, block_size=0)
    return Logits(scale[:, None] * scores, query_places[:, None] == key_places)

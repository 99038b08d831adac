"""Cross-entropy of predicted tokens."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax._checks import check_integer
from mmjax.ops.precision import at_least_float32


def masked_token_cross_entropy(logits: ArrayLike, labels: ArrayLike, *, ignore_index: int = -1) -> jax.Array:
    """Mean cross-entropy of the positions that have a label, over the whole batch.

    `value = mean_{(b, t): labels_bt != ignore_index} -log softmax(logits_bt)[labels_bt]`

    A mean over tokens: a long text weighs more than a short one. CoCa's caption loss is this on
    `logits[:, :-1]` and `token_ids[:, 1:]` with the padding id ignored.

    Args:
      logits: `[B, T, V]` any real; ignored positions may hold anything, NaN included.
      labels: `[B, T]` int in [0, V), or `ignore_index`.
      ignore_index: the label of positions that do not count.

    Returns:
      `[]` float32, at least 0; 0 when no position counts.

    Raises:
      ValueError: the shapes do not agree.
      TypeError: `labels` is not of integers.

    >>> f"{masked_token_cross_entropy(jnp.zeros((1, 3, 4)), jnp.array([[2, 0, -1]])):.3f}"
    '1.386'

    Reference:
      Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022, equation 3;
      mlfoundations/open_clip at 89fb801, `CoCaLoss`.
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    check_integer("masked_token_cross_entropy", labels=labels)
    if logits.shape[:-1] != labels.shape:
        found = f"logits {logits.shape} and labels {labels.shape}"
        raise ValueError(f"masked_token_cross_entropy: found {found}, expected [B, T, V] and [B, T]")
    valid = labels != ignore_index
    logits = jnp.where(valid[..., None], logits, 0.0)
    chosen = jnp.take_along_axis(logits, jnp.where(valid, labels, 0)[..., None], axis=-1)[..., 0]
    value = jnp.where(valid, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0)
    return jnp.sum(value) / jnp.maximum(jnp.sum(valid), 1)

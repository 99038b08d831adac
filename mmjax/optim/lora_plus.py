"""LoRA+: AdamW with a larger learning rate for the second matrix of each pair."""

from collections.abc import Hashable
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from mmjax.optim.schedules import Schedule
from mmjax.paths import flatten, unflatten


def lora_plus(
    learning_rate: ArrayLike | Schedule,
    *,
    ratio: ArrayLike = 16.0,
    weight_decay: float | jax.Array = 0.0,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    embedding_rate: ArrayLike | Schedule = 1e-6,
) -> optax.GradientTransformation:
    """AdamW for the parameters of LoRA, whose `b` learns `ratio` times as fast as its `a`.

    | leaves | learning rate | weight decay |
    |---|---|---|
    | `a`, and what is no low-rank pair | `learning_rate` | yes |
    | `b` | `ratio learning_rate` | yes |
    | `m`, and leaves of one axis | `ratio learning_rate` | no |
    | `a` and `b` of modules named `...embedding` | `embedding_rate` | yes |

    In a config, `optimizer.rules = (("**/b", {"rate": 16.0}), ("**", {}))` does the same for any optimizer.

    Args:
      learning_rate: of `a`, or its schedule.
      ratio: 16 as a rule; the authors advise 2 to 32, more where the task is farther from pretraining.
      weight_decay: decoupled, times the learning rate of the leaf.
      b1, b2, eps: of Adam.
      embedding_rate: of embeddings' pairs.

    Returns:
      A transformation of nested dicts.

    >>> import jax.numpy as jnp
    >>> params = {"fc1": {"a": jnp.zeros((2, 1)), "b": jnp.zeros((1, 2))}}
    >>> optimizer = lora_plus(0.01, ratio=4.0, eps=0.0)
    >>> updates, _ = optimizer.update(optax.tree.ones_like(params), optimizer.init(params), params)
    >>> updates["fc1"]["b"].round(6).tolist()
    [[-0.03999999910593033, -0.03999999910593033]]

    Reference:
      Hayou et al., "LoRA+: Efficient Low Rank Adaptation of Large Models", ICML 2024, section 4;
      huggingface/peft 0.21.2, `optimizers/loraplus.py`.
    """

    def times(rate: Any) -> Any:
        return (lambda step: ratio * rate(step)) if callable(rate) else ratio * rate

    def adamw(rate: Any, decay: float | jax.Array) -> optax.GradientTransformation:
        return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=decay)

    groups: dict[Hashable, optax.GradientTransformation] = {
        "a": adamw(learning_rate, weight_decay),
        "b": adamw(times(learning_rate), weight_decay),
        "vector": adamw(times(learning_rate), 0.0),
        "embedding": adamw(embedding_rate, weight_decay),
    }
    return optax.partition(groups, _groups)


def _groups(params: Any) -> dict[str, Any]:
    return unflatten({path: _group(path, leaf) for path, leaf in flatten(params).items()})


def _group(path: str, leaf: Any) -> str:
    *_, site, name = ("", *path.split("/"))
    if name in ("a", "b") and site.endswith("embedding"):
        return "embedding"
    if name == "m" or leaf.ndim == 1:
        return "vector"
    return "b" if name == "b" else "a"

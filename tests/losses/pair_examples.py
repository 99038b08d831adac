"""Calls of the losses that compare all pairs, with what they differentiate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import losses

B = 16
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


VARIABLES = {
    "images": draw(B, 5),
    "texts": draw(B, 5),
    "image_tokens": draw(B, 4, 5),
    "text_tokens": draw(B, 3, 5),
    "scale": jnp.float32(6.0),
    "bias": jnp.float32(-2.0),
}
TEACHER = draw(B, 3), draw(B, 3)
IDS, POSITIVES = jnp.asarray(RNG.integers(0, 6, B)), jnp.asarray(RNG.permutation(B))
# Every text has a valid token but one, which no image can match.
TEXT_MASK = jnp.asarray(RNG.random((B, 3)) < 0.6).at[:, 0].set(True).at[5].set(False)
WEIGHTS = draw(B)

# loss, its arrays and learned settings by the names above, other settings; all but siglip_loss take an exchange.
EXAMPLES = {
    "clip": (losses.clip_loss, ("images", "texts"), ("scale",), {}),
    "info_nce": (losses.info_nce, ("images", "texts"), ("scale",), {}),
    "info_nce_ids": (losses.info_nce, ("images", "texts"), ("scale",), {"ids": IDS, "positive_index": POSITIVES}),
    "siglip": (losses.siglip_loss, ("images", "texts"), ("scale", "bias"), {}),
    "siglip_negatives": (losses.siglip_loss, ("images", "texts"), ("scale", "bias"), {"negative_only": True}),
    "distillation": (losses.clip_distillation_loss, ("images", "texts"), ("scale",), {"teacher_scale": 9.0}),
    "filip": (losses.filip_loss, ("image_tokens", "text_tokens"), ("scale",), {}),
    "filip_masked": (
        losses.filip_loss,
        ("image_tokens", "text_tokens"),
        ("scale",),
        {"text_mask": TEXT_MASK, "top_k": 2},
    ),
}


def value_and_gradients(name, wrap=lambda loss: loss, rows=B, **settings):
    """Value of each example and gradients of their weighted sum, by name; `wrap` changes the loss."""
    loss, arrays, learned, others = EXAMPLES[name]
    teacher = TEACHER if name == "distillation" else ()

    def total(variables):
        head = lambda x: x[:rows] if isinstance(x, jax.Array) and x.ndim else x  # noqa: E731
        taken = jax.tree.map(head, {key: variables[key] for key in (*arrays, *learned)})
        fixed = {key: head(value) for key, value in others.items()}
        call = functools.partial(wrap(loss), *(taken[key] for key in arrays), *map(head, teacher))
        values = call(**{key: taken[key] for key in learned}, **fixed, **settings)
        return jnp.sum(WEIGHTS[:rows] * values), values

    chosen = {key: VARIABLES[key] for key in (*arrays, *learned)}
    gradients, values = jax.grad(total, has_aux=True)(chosen)
    return {"value": values, **gradients}


def largest_difference(found, expected):
    """Over the largest number of each array, at least 1."""
    return max(
        float(np.max(np.abs(found[key] - expected[key])) / max(1, np.max(np.abs(expected[key])))) for key in expected
    )

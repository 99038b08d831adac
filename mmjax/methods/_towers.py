"""What the methods on a dual encoder share: its parameters, and what it makes of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.method import Batch, Params, Variables
from mmjax.models import DualEncoder

TOWERS = ("image", "text")


def tower_names(model: DualEncoder) -> tuple[str, ...]:
    """The towers that the model has."""
    return tuple(name for name in TOWERS if getattr(model, name) is not None)


def check_towers(method: str, model: DualEncoder) -> None:
    """Raises ValueError unless the model has both towers."""
    missing = [name for name in TOWERS if getattr(model, name) is None]
    if missing:
        raise ValueError(f"{method}: the model has no {' and no '.join(missing)} tower; set model.{missing[0]}")


def tower_inputs(batch: Batch, name: str) -> dict[str, Any]:
    """The arguments of `DualEncoder` that a batch holds for a tower."""
    if name == "image":
        return {"images": batch["image"]}
    return {"token_ids": batch["text"], "text_mask": batch["text_mask"]}


def initializer(model: DualEncoder) -> Callable[[jax.Array, Batch], Variables]:
    """`(rng, batch) -> Variables` of the whole model; input that a feature bank stands in for is blank."""

    def init(rng: jax.Array, batch: Batch) -> Variables:
        blank = {"image": _blank_images, "text": _blank_texts}
        inputs: dict[str, Any] = {}
        for name in tower_names(model):
            inputs |= tower_inputs(batch if name in batch else blank[name](model), name)
        return Variables(model.init(rng, **inputs)["params"], {})

    return init


def encoders(model: DualEncoder) -> dict[str, Callable[[Params, Batch], jax.Array]]:
    """modality -> `(params, batch) -> embeddings` of the towers that the model has, heads included."""

    def encoder(name: str) -> Callable[[Params, Batch], jax.Array]:
        def encode(params: Params, batch: Batch) -> jax.Array:
            output, _ = model.apply({"params": params}, **tower_inputs(batch, name))
            return getattr(output, f"{name}_embeds")

        return encode

    return {name: encoder(name) for name in tower_names(model)}


def _blank_images(model: Any) -> Batch:
    size = model.image.image_size
    if size is None:
        raise ValueError("model.image.image_size is None and the batch has no pictures to tell it; set it")
    height, width = size if isinstance(size, tuple) else (size, size)
    return {"image": jnp.zeros((1, height, width, 3))}


def _blank_texts(model: Any) -> Batch:
    return {"text": jnp.zeros((1, 1), jnp.int32), "text_mask": jnp.ones((1, 1), bool)}

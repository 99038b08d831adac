"""Running a model's encoders over a data set, in batches of one shape."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.data import ImageSpec, Tokenizer, caption_batches, image_batches
from mmjax.method import Batch, Method, Params


class Encoders(NamedTuple):
    """A model's encoders and all that turns raw records into their input.

    Attributes:
      functions: modality -> compiled `(params, batch) -> embeddings`, [B, D].
      tokenizer: of the texts; None where the model embeds none, or came without.
      image: preprocessing of the pictures; None likewise.
      context_length: tokens a text may have; None likewise.
      mesh: devices that share a batch.
      batch_size: examples a call, padded at the end.
    """

    functions: Mapping[str, Callable[[Params, Batch], jax.Array]]
    tokenizer: Tokenizer | None
    image: ImageSpec | None
    context_length: int | None
    mesh: Mesh
    batch_size: int = 256


class EmbeddedImages(NamedTuple):
    """Embeddings of the pictures of a source.

    Attributes:
      embeds: [N, D] float32, not normalised.
      index: [N] int, position of each in the source.
      labels: [N] int, or None where the source has none.
    """

    embeds: np.ndarray
    index: np.ndarray
    labels: np.ndarray | None


def make_encoders(
    method: Method,
    *,
    tokenizer: Tokenizer | None,
    image: ImageSpec | None,
    context_length: int | None,
    mesh: Mesh,
    batch_size: int = 256,
) -> Encoders:
    """Compiles the encoders of a method, each once for all calls."""
    # Embeddings are gathered, so that every process has all of them.
    functions = {
        modality: jax.jit(parallel.by_examples(function, mesh), out_shardings=parallel.replicated(mesh))
        for modality, function in method.encoders.items()
    }
    return Encoders(functions, tokenizer, image, context_length, mesh, batch_size)


def image_inputs(encoders: Encoders) -> ImageSpec:
    """How the model's pictures are prepared.

    Raises:
      ConfigError: the model embeds no pictures, or came without their preprocessing.
    """
    if "image" not in encoders.functions:
        raise ConfigError("the model has no image tower; embed texts with it, or join it with one by config.init_from")
    if encoders.image is None:
        raise ConfigError("the model came without preprocessing of pictures; write the workdir's image.json")
    return encoders.image


def text_inputs(encoders: Encoders) -> tuple[Tokenizer, int]:
    """The tokenizer of the model's texts, and how many tokens one may have.

    Raises:
      ConfigError: the model embeds no texts, or came without a tokenizer.
    """
    if "text" not in encoders.functions:
        raise ConfigError(
            "the model has no text tower; embed pictures with it, or join it with one by config.init_from"
        )
    if encoders.tokenizer is None or encoders.context_length is None:
        raise ConfigError("the model came without a tokenizer; copy its tokenizer.json into the workdir")
    return encoders.tokenizer, encoders.context_length


def embed_images(
    encoders: Encoders, params: Params, source: Sequence[Mapping[str, Any]], *, max_records: int | None = None
) -> EmbeddedImages:
    """Embeddings of the first `max_records` pictures of `source`, in its order; unreadable ones are left out."""
    batches = image_batches(
        source, batch_size=encoders.batch_size, image=image_inputs(encoders), max_records=max_records
    )
    columns = _encode(encoders, "image", params, batches, keep=("index", "label"))
    return EmbeddedImages(columns["embeds"], columns["index"], columns.get("label"))


def embed_texts(encoders: Encoders, params: Params, texts: Sequence[str]) -> np.ndarray:
    """Embeddings of `texts`, [N, D] float32, not normalised."""
    tokenizer, length = text_inputs(encoders)
    batches = caption_batches(texts, batch_size=encoders.batch_size, tokenizer=tokenizer, context_length=length)
    return _encode(encoders, "text", params, batches, keep=())["embeds"]


def _encode(
    encoders: Encoders, modality: str, params: Params, batches: Iterable[Batch], *, keep: Sequence[str]
) -> dict[str, np.ndarray]:
    columns: dict[str, list[np.ndarray]] = {}
    params = parallel.on_mesh(params, encoders.mesh)
    for batch in batches:
        valid = np.asarray(batch["mask"])
        embeds = encoders.functions[modality](params, parallel.put_shared_batch(batch, encoders.mesh))
        columns.setdefault("embeds", []).append(np.asarray(embeds, np.float32)[valid])
        for name in keep:
            if name in batch:
                columns.setdefault(name, []).append(np.asarray(batch[name])[valid])
    return {name: np.concatenate(parts) for name, parts in columns.items()}

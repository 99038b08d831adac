"""Running a model's encoders over a data set, in batches of one shape."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mmjax import parallel
from mmjax.data import ImageSpec, Tokenizer, caption_batches, image_batches
from mmjax.method import Batch, Method, Params


class Encoders(NamedTuple):
    """A model's encoders and all that turns raw records into their input.

    Attributes:
      functions: modality -> compiled `(params, batch) -> embeddings`, [B, D].
      tokenizer: of the texts.
      image: preprocessing of the pictures.
      context_length: tokens a text may have.
      mesh: devices that share a batch.
      batch_size: examples a call, padded at the end.
    """

    functions: Mapping[str, Callable[[Params, Batch], jax.Array]]
    tokenizer: Tokenizer
    image: ImageSpec
    context_length: int
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
    tokenizer: Tokenizer,
    image: ImageSpec,
    context_length: int,
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


def embed_images(
    encoders: Encoders, params: Params, source: Sequence[Mapping[str, Any]], *, max_records: int | None = None
) -> EmbeddedImages:
    """Embeddings of the first `max_records` pictures of `source`, in its order; unreadable ones are left out."""
    batches = image_batches(source, batch_size=encoders.batch_size, image=encoders.image, max_records=max_records)
    columns = _encode(encoders, "image", params, batches, keep=("index", "label"))
    return EmbeddedImages(columns["embeds"], columns["index"], columns.get("label"))


def embed_texts(encoders: Encoders, params: Params, texts: Sequence[str]) -> np.ndarray:
    """Embeddings of `texts`, [N, D] float32, not normalised."""
    batches = caption_batches(
        texts,
        batch_size=encoders.batch_size,
        tokenizer=encoders.tokenizer,
        context_length=encoders.context_length,
    )
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

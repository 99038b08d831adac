"""Fixed inputs, and what a bundle makes of them: the side of a comparison that is ours."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.convert.bundle import Bundle, in_float32, picture_size, text_length, towers
from mmjax.data import ImageSpec, normalize, resize_as
from mmjax.ops import l2_normalize

FIXED_TEXTS = (
    "a small red circle left of a large blue square on a grey field",
    "Two CATS, one Dog; 3.14 (and a half)!",
    "it's the artist's 2nd  spaced\tout\nline",
    "un café à l'été, Straße, naïve coöperation",
    "e\u0301 is not composed",  # A letter and an accent, which some tokenizers compose first.
    "東京の猫 и собака 🐈‍⬛",
    "",
    "a very long text that goes on and on " * 40,
)


class Pictures(NamedTuple):
    """Pictures, and our preprocessing of them.

    Attributes:
      raw: uint8 `[H, W, 3]` of several sizes.
      pixels: `[B, S, S, 3]` float32.
    """

    raw: Sequence[np.ndarray]
    pixels: np.ndarray


class Texts(NamedTuple):
    """Texts, and what our tokenizer makes of them.

    Attributes:
      raw: the texts; empty where no tokenizer is known, and the ids are random.
      token_ids: `[B, T]` int32.
      mask: `[B, T]` bool.
    """

    raw: Sequence[str]
    token_ids: np.ndarray
    mask: np.ndarray


class Probe(NamedTuple):
    """What both implementations are run on; None where the model lacks the tower."""

    image: Pictures | None
    text: Texts | None


def make_probe(bundle: Bundle) -> Probe:
    """The fixed inputs for a bundle."""
    there = towers(bundle.model)
    return Probe(_pictures(bundle) if "image" in there else None, _texts(bundle) if "text" in there else None)


def run_bundle(bundle: Bundle, probe: Probe) -> dict[str, np.ndarray]:
    """What a bundle makes of the probe in float32, by name.

    Names: "pixels" and "token ids" (-1 for padding) where preprocessing and tokenizer are known,
    `image/encoder/block_i` and `text/encoder/block_i`, "image embeddings" and "text embeddings", and with both towers
    "logits".
    """
    outputs: dict[str, Any] = {}
    inputs: dict[str, np.ndarray] = {}
    if probe.image is not None:
        inputs["images"] = probe.image.pixels
        if bundle.image is not None:
            outputs["pixels"] = probe.image.pixels
    if probe.text is not None:
        inputs |= {"token_ids": probe.text.token_ids, "text_mask": probe.text.mask}
        if bundle.tokenizer is not None:
            outputs["token ids"] = np.where(probe.text.mask, probe.text.token_ids, -1)
    bundle = in_float32(bundle)
    with jax.default_matmul_precision("highest"):
        output, intermediates = jax.jit(bundle.model.apply)({"params": bundle.params}, **inputs)
        for name, found in intermediates.items():
            outputs |= {f"{name}/encoder/block_{i}": x for i, x in enumerate(found["blocks"])}
            outputs[f"{name} embeddings"] = getattr(output, f"{name}_embeds")
        if output.log_scale is not None:
            image, text = l2_normalize(output.image_embeds), l2_normalize(output.text_embeds)
            bias = 0.0 if output.bias is None else output.bias
            outputs["logits"] = jnp.exp(output.log_scale) * image @ text.T + bias
    return {name: np.asarray(x) for name, x in outputs.items()}


def fixed_images(size: int) -> list[np.ndarray]:
    """Pictures to compare preprocessing on: uint8 RGB, square and oblong, larger and smaller than `size`.

    >>> [image.shape for image in fixed_images(32)]
    [(32, 32, 3), (49, 67, 3), (69, 31, 3), (17, 16, 3)]
    """
    rng = np.random.default_rng(0)
    shapes = [(size, size), (3 * size // 2 + 1, 2 * size + 3), (2 * size + 5, size - 1), (size // 2 + 1, size // 2)]
    images = []
    for height, width in shapes:
        rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
        smooth = np.stack([rows + 0 * columns, columns + 0 * rows, 0.5 + 0.5 * np.sin(9 * rows * columns)], axis=-1)
        noisy = 0.7 * smooth + 0.3 * rng.random((height, width, 3))
        images.append((255 * noisy).astype(np.uint8))
    return images


def _pictures(bundle: Bundle) -> Pictures:
    size = picture_size(bundle)
    spec = bundle.image or ImageSpec(size)
    raw = fixed_images(size)
    return Pictures(raw, normalize(np.stack([resize_as(picture, spec) for picture in raw]), spec))


def _texts(bundle: Bundle) -> Texts:
    tower: Any = bundle.model.text
    length = text_length(bundle)
    if bundle.tokenizer is not None:
        return Texts(FIXED_TEXTS, *bundle.tokenizer.encode(FIXED_TEXTS, length=length))
    ids = np.random.default_rng(0).integers(0, tower.vocab_size, (len(FIXED_TEXTS), length), dtype=np.int32)
    lengths = np.linspace(1, length, len(FIXED_TEXTS)).astype(int)
    return Texts((), ids, np.arange(length) < lengths[:, None])

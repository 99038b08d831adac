"""A folder of HF CLIP, run by `transformers`, beside the model it came from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.convert.extras import require
from mmjax.convert.parity import FIXED_TEXTS, Report, compare, fixed_images
from mmjax.data import ImageSpec, Tokenizer, normalize, resize_to
from mmjax.models import DualEncoder
from mmjax.ops import l2_normalize

_OUTPUTS = (
    "image embeddings",
    "text embeddings",
    "image embeddings, normalised",
    "text embeddings, normalised",
    "logits",
)


def verify_model(
    folder: str | Path,
    model: DualEncoder,
    params: Mapping[str, Any],
    *,
    tokenizer: Tokenizer,
    image: ImageSpec,
    context_length: int,
) -> Report:
    """Compares a folder, as `transformers` loads it, with the model it came from or became.

    Compared are, in float32 on fixed pictures and texts, the token ids, the pixels, the output of each block, the
    embeddings and the logits.

    Args:
      folder: of HF CLIP.
      model, params, tokenizer, image, context_length: as for `export_model`.

    Returns:
      The report, every row within its limit.

    Raises:
      ConversionError: something differs by more than 1e-4; the message lists all that does.
      MissingExtraError: `torch` or `transformers` is not installed.
    """
    torch = require("torch", extra="torch", purpose="verification")
    transformers = require("transformers", extra="torch", purpose="verification")
    network = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    # `transformers` prefers torchvision where it is installed, which resizes a little differently from Pillow.
    preprocessing = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")

    pictures = fixed_images(image.size)
    sized = np.stack([resize_to(picture, image.size, resize=image.resize, fit=image.fit) for picture in pictures])
    pixels = normalize(sized, image)
    their_pixels = preprocessing(pictures, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    ids, mask = tokenizer.encode(FIXED_TEXTS, length=context_length)
    inputs = processor(
        text=list(FIXED_TEXTS), padding="max_length", max_length=context_length, truncation=True, return_tensors="np"
    )
    their_ids, their_mask = inputs["input_ids"], inputs["attention_mask"].astype(bool)

    ours = _run_ours(model, params, pixels, ids, mask)
    theirs = _run_theirs(torch, network, pixels, their_ids, their_mask)
    rows = [
        # Paddings may differ: what follows the end token is not read.
        compare("token ids", np.where(mask, ids, -1), np.where(their_mask, their_ids, -1), limit=0),
        compare("pixels", pixels, their_pixels),
        *(compare(name, ours[name], theirs[name], relative="/block_" in name) for name in ours),
    ]
    loaded = type(processor.image_processor).__name__
    facts = {
        "versions": f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__}",
        "tokenizer": type(processor.tokenizer).__name__,
        "image processor": f"{type(preprocessing).__name__} (CLIPProcessor loads {loaded} here)",
        "inputs": f"{len(pictures)} pictures, {len(FIXED_TEXTS)} texts, float32",
        "limits": "absolute; for blocks in units of the largest value, where that is above 1",
    }
    report = Report("transformers.CLIPModel and mmjax", tuple(rows), facts)
    report.check()
    return report


def _run_ours(
    model: DualEncoder, params: Mapping[str, Any], pixels: np.ndarray, ids: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
    model = model.clone(image=model.image.clone(dtype=jnp.float32), text=model.text.clone(dtype=jnp.float32))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    with jax.default_matmul_precision("highest"):
        output, intermediates = jax.jit(model.apply)({"params": params}, pixels, ids, text_mask=mask)
        image, text = l2_normalize(output.image_embeds), l2_normalize(output.text_embeds)
        logits = jnp.exp(output.log_scale) * image @ text.T
    blocks = {"image": intermediates["image"]["blocks"], "text": [x[mask] for x in intermediates["text"]["blocks"]]}
    return _named(blocks, (output.image_embeds, output.text_embeds, image, text, logits))


def _run_theirs(
    torch: Any, network: Any, pixels: np.ndarray, ids: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
    blocks: dict[str, list[np.ndarray]] = {"image": [], "text": []}
    for tower, stack, select in (("image", network.vision_model, ...), ("text", network.text_model, mask)):
        for layer in stack.encoder.layers:
            layer.register_forward_hook(
                lambda module, args, output, kept=blocks[tower], select=select: kept.append(output.numpy()[select])
            )
    with torch.no_grad():
        output = network(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            pixel_values=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
        )
    raw = output.vision_model_output.pooler_output, output.text_model_output.pooler_output
    return _named(blocks, (*raw, output.image_embeds, output.text_embeds, output.logits_per_image))


def _named(blocks: Mapping[str, Any], outputs: Sequence[Any]) -> dict[str, np.ndarray]:
    named = {f"{tower}/encoder/block_{i}": x for tower, layers in blocks.items() for i, x in enumerate(layers)}
    named |= dict(zip(_OUTPUTS, outputs, strict=True))
    return {name: np.asarray(x) for name, x in named.items()}

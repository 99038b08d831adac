"""What `SiglipModel` and `Siglip2Model` have in common: the table, the files, how texts are read.

SigLIP attends to padding and pools at the last position, so that the padding is part of a text: its id counts, and no
mask is given to the model.

Reference: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023; huggingface/transformers 5.23.0.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import ConversionError, read_all
from mmjax.convert.formats._hf_siglip_config import text_tower, vision_tower
from mmjax.convert.formats.hf_clip import LAYER
from mmjax.convert.hf_folder import write_preprocessing, write_tokenizer
from mmjax.convert.hf_network import hf_parts
from mmjax.convert.layers import dense, layer_norm, layers, multihead_attention
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, read_json, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.convert.transforms import leading
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder

# All but the kernel of the patches, which is a convolution in one of the two and a dense layer in the other.
RULES = (
    Rule("image/patch_embed/bias", "vision_model.embeddings.patch_embedding.bias"),
    Rule("image/position_embedding", "vision_model.embeddings.position_embedding.weight"),
    *layers("image/encoder/block_{i}", "vision_model.encoder.layers.{i}", LAYER),
    *layer_norm("image/ln_post", "vision_model.post_layernorm"),
    Rule("image/attn_pool/probe", "vision_model.head.probe", leading(2)),
    *multihead_attention("image/attn_pool/attn", "vision_model.head.attention"),
    *layers("image/attn_pool", "vision_model.head", {"ln": "layernorm", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}),
    Rule("text/token_embedding/embedding", "text_model.embeddings.token_embedding.weight"),
    Rule("text/position_embedding", "text_model.embeddings.position_embedding.weight"),
    *layers("text/encoder/block_{i}", "text_model.encoder.layers.{i}", LAYER),
    *layer_norm("text/ln_final", "text_model.final_layer_norm"),
    *dense("text/proj", "text_model.head"),
    Rule("log_scale", "logit_scale", leading()),
    Rule("bias", "logit_bias", leading()),
)
PATCHES = "vision_model.embeddings.patch_embedding.weight"


def read_siglip(
    source: Source,
    model_type: str,
    *,
    vision: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    tokenizer: Callable[[Path], Tokenizer],
    image: Callable[[Path], ImageSpec],
) -> Bundle:
    """All of a folder but its parameters.

    Args:
      source: the folder.
      model_type: "siglip" or "siglip2".
      vision: the `vision_config` of this type -> that of "siglip".
      tokenizer, image: read these from the folder.

    Raises:
      ConversionError: the folder is of another type, or something has no counterpart; all reasons are listed.
    """
    folder, config = source.folder, read_json(source.folder / "config.json")
    if (found := config.get("model_type")) != model_type:
        raise ConversionError(f"cannot read {folder}", [f"model_type is {found!r}, expected {model_type!r}"])
    parts = read_all(
        f"cannot read {folder}",
        vision=lambda: vision_tower(vision(config.get("vision_config") or {})),
        text=lambda: text_tower(config.get("text_config") or {}),
        tokenizer=lambda: tokenizer(folder),
        image=lambda: image(folder),
    )
    text = parts["text"]
    model = DualEncoder(parts["vision"], text, use_bias=True)
    return Bundle(model, {}, parts["tokenizer"], parts["image"], text.context_length)


def write_siglip(
    folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray], *, config: Mapping[str, Any], processor: str
) -> None:
    """Writes a folder; logits without bias get one that is 0."""
    write_json(folder / "config.json", config)
    write_tensors(folder, {"logit_bias": np.zeros(1, np.float32), **tensors})
    write_tokenizer(folder, bundle.tokenizer, context_length=bundle.context_length, processor=processor)
    settings = folder / "tokenizer_config.json"
    write_json(settings, read_json(settings) | {"model_input_names": ["input_ids"]})
    write_preprocessing(folder, bundle.image, kind="SiglipImageProcessor", processor=processor)


def read_siglip_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of `tokenizer.json`, with the padding and end token that `tokenizer_config.json` names.

    Raises:
      ConversionError: there is no `tokenizer.json`, or texts are padded in front.
    """
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not file.is_file():
        problem = "no tokenizer.json, and spiece.model is not read; save the fast form of the tokenizer beside it"
        raise ConversionError(f"cannot read {folder}", [problem])
    config = read_json(settings) if settings.is_file() else {}
    if (side := config.get("padding_side", "right")) != "right":
        raise ConversionError(f"cannot read {folder}", [f"padding_side is {side!r}, expected 'right'"])
    added = [name for name in ("bos", "eos") if config.get(f"add_{name}_token")]
    tokens = {name: config.get(f"{name}_token") for name in ("pad", *added)}
    # A token is its text, or an object that has it.
    return Tokenizer.load(file, **{n: t["content"] if isinstance(t, dict) else t for n, t in tokens.items()})


def siglip_network(source: Source, network: Any, *, pictures: Callable[[Any], Mapping[str, Any]]) -> Network:
    """A model of either type for comparison.

    Args:
      source: its folder.
      network: the model.
      pictures: pixels `[B, 3, H, W]` -> what the model takes for them.
    """
    parts = hf_parts(source.folder)
    ids, mask = parts["tokenize"]([""], network.config.text_config.max_position_embeddings)
    padding = int(ids[~mask][0])

    def padded(ids: Any, mask: Any) -> Any:
        # The model reads padding, so it is given its own tokenizer's: if ours is another, the embeddings differ.
        return ids.masked_fill(mask == 0, padding)

    return Network(
        image=Tower(
            lambda pixels: network.get_image_features(**pictures(pixels)).pooler_output,
            network.vision_model.encoder.layers,
        ),
        text=Tower(
            lambda ids, mask: network.get_text_features(padded(ids, mask)).pooler_output,
            network.text_model.encoder.layers,
        ),
        logits=lambda pixels, ids, mask: network(padded(ids, mask), **pictures(pixels)).logits_per_image,
        **parts,
    )

"""Dual encoders to and from what open_clip trains: `open_clip_config.json` with weights, or a state dict alone.

Folders are those that `open_clip.create_model_and_transforms("local-dir:...")` loads. The layout is OpenAI's, with one
fused tensor for query, key and value, and projections that are not transposed; names of custom text towers begin with
`text.`. SigLIP's image towers, which have no class token, are timm's, and are known by their published sizes only.

A state dict alone shows its settings in its shapes; the activation does not show, and is QuickGELU for OpenAI's own
and GELU for others. Positions on another grid of patches are resampled as open_clip does. CLIP's vocabulary comes from
the package `open_clip`, or from its file `bpe_simple_vocab_16e6.txt.gz` beside the weights.

Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021; Ilharco et
al., "OpenCLIP", 2021; mlfoundations/open_clip 3.3.0.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.convert.bundle import Bundle
from mmjax.convert.errors import read_all
from mmjax.convert.extras import require
from mmjax.convert.format import Format
from mmjax.convert.formats._open_clip_config import (
    TRUNK,
    open_clip_config,
    open_clip_model,
    open_clip_preprocessing,
)
from mmjax.convert.formats._open_clip_inferred import OPENAI_SIZES, inferred_config
from mmjax.convert.formats._open_clip_obstacles import open_clip_obstacles
from mmjax.convert.formats._open_clip_tokenizer import read_open_clip_tokenizer, tokenize_by
from mmjax.convert.formats._torchvision import CROP_FACT, preprocess_by
from mmjax.convert.formats._vit_shapes import resample
from mmjax.convert.formats.timm_vit import plain_tensors, timm_rules
from mmjax.convert.hf_folder import write_tokenizer
from mmjax.convert.layers import dense, layer_norm, layers, multihead_attention
from mmjax.convert.network import Network, Tower
from mmjax.convert.rules import Rule
from mmjax.convert.source import Source, read_json, write_json
from mmjax.convert.tensor_files import write_tensors
from mmjax.convert.transforms import CONV
from mmjax.models import DualEncoder

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_POSITIONS = "visual.positional_embedding"


def _blocks(path: str, name: str) -> tuple[Rule, ...]:
    return (
        *layers(path, name, {"ln_1": "ln_1", "ln_2": "ln_2", "mlp/fc1": "mlp.c_fc", "mlp/fc2": "mlp.c_proj"}),
        *multihead_attention(f"{path}/attn", f"{name}.attn"),
        Rule(f"{path}/gamma_1", f"{name}.ls_1.gamma"),
        Rule(f"{path}/gamma_2", f"{name}.ls_2.gamma"),
    )


_IMAGE = (
    Rule("image/patch_embed/kernel", "visual.conv1.weight", CONV),
    Rule("image/class_embedding", "visual.class_embedding"),
    Rule("image/position_embedding", _POSITIONS),
    *layer_norm("image/ln_pre", "visual.ln_pre"),
    *_blocks("image/encoder/block_{i}", "visual.transformer.resblocks.{i}"),
    *layer_norm("image/ln_post", "visual.ln_post"),
    Rule("image/proj/kernel", "visual.proj"),
)
_TEXT = (
    Rule("text/token_embedding/embedding", "token_embedding.weight"),
    Rule("text/position_embedding", "positional_embedding"),
    *_blocks("text/encoder/block_{i}", "transformer.resblocks.{i}"),
    *layer_norm("text/ln_final", "ln_final"),
    Rule("log_scale", "logit_scale"),
    Rule("bias", "logit_bias"),
)


def _rules(model: DualEncoder) -> tuple[Rule, ...]:
    image, text = _towers(model)
    plain = (Rule("text/proj/kernel", "text_projection"),)
    projection = dense("text/proj", "text_projection") if text.proj_bias else plain
    return (*(_IMAGE if image.class_token else timm_rules(TRUNK)), *_TEXT, *projection)


def _towers(model: DualEncoder) -> Any:
    return model.image, model.text


def _detect(source: Source) -> bool:
    if source.path.is_file() and source.path.name.startswith("open_clip_"):
        return True
    if {"model_type", "architecture"} & source.config.keys():
        return False  # Folders of transformers and timm may hold open_clip's files beside their own.
    if (source.folder / _CONFIG).is_file():
        return True
    return not source.config and not source.tensors.keys().isdisjoint(("visual.class_embedding", f"{TRUNK}pos_embed"))


def _config(source: Source) -> dict[str, Any]:
    """The sections `model_cfg` and `preprocess_cfg`."""
    file = source.folder / _CONFIG
    if not file.is_file():
        return {"model_cfg": inferred_config(_flat_tensors(source)), "preprocess_cfg": {}}
    content = read_json(file)
    return {"preprocess_cfg": {}, **(content if "model_cfg" in content else {"model_cfg": content})}


def _flat_tensors(source: Source) -> dict[str, np.ndarray]:
    """The tensors, those of a custom text tower too by the names that they have in `CLIP`."""
    return {name.removeprefix("text."): tensor for name, tensor in source.tensors.items()}


def _read(source: Source) -> Bundle:
    config = _config(source)
    model = open_clip_model(config["model_cfg"], source.tensors)
    image, text = _towers(model)
    parts = read_all(
        f"cannot read {source.path}",
        image=lambda: open_clip_preprocessing(config["preprocess_cfg"], size=image.image_size),
        tokenizer=lambda: read_open_clip_tokenizer(source.folder, config["model_cfg"]["text_cfg"]),
    )
    return Bundle(model, {}, parts["tokenizer"], parts["image"], text.context_length)


def _tensors(source: Source) -> dict[str, np.ndarray]:
    image, _ = _towers(open_clip_model(_config(source)["model_cfg"], source.tensors))
    tensors = _flat_tensors(source)
    # Some models keep these two with an axis of length 1.
    tensors |= {name: tensors[name].reshape(()) for name in ("logit_scale", "logit_bias") if name in tensors}
    if _POSITIONS in tensors:
        side = image.image_size // image.patch_size
        tensors[_POSITIONS] = resample(tensors[_POSITIONS], side=side, num_prefix=1)
    if not image.class_token:
        trunk = {name: x for name, x in tensors.items() if name.startswith(TRUNK)}
        plain = plain_tensors({name.removeprefix(TRUNK): x for name, x in trunk.items()}, image, arguments={})
        tensors = {name: x for name, x in tensors.items() if name not in trunk}
        tensors |= {f"{TRUNK}{name}": x for name, x in plain.items()}
    return tensors


def _write(folder: Path, bundle: Bundle, tensors: Mapping[str, np.ndarray]) -> None:
    config = open_clip_config(bundle)
    if config["model_cfg"].get("custom_text"):
        shared = ("visual.", "logit_")
        tensors = {name if name.startswith(shared) else f"text.{name}": x for name, x in tensors.items()}
    write_json(folder / _CONFIG, config)
    write_tensors(folder, tensors, file=_WEIGHTS)
    write_tokenizer(folder, bundle.tokenizer, context_length=bundle.context_length)


def _load(source: Source) -> Network:
    torch = require("torch", extra="open_clip", purpose="verification")
    open_clip = require("open_clip", extra="open_clip", purpose="verification")
    config, configured = _config(source), (source.folder / _CONFIG).is_file()
    with tempfile.TemporaryDirectory() as parent:
        folder = source.folder
        if not configured or source.path != folder:  # open_clip takes folders, and of their files which it likes.
            folder = Path(parent)
            write_json(folder / _CONFIG, config)
            write_tensors(folder, {n: x for n, x in source.tensors.items() if n not in OPENAI_SIZES}, file=_WEIGHTS)
        network, _, pipeline = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{source.folder if configured else folder}")
    network.eval()
    visual, text = network.visual, getattr(network, "text", network)
    tokenize, words = tokenize_by(tokenizer, source.folder, config["model_cfg"]["text_cfg"])
    padding = None
    if tokenize is not None:
        ids, mask = tokenize([""], network.context_length)
        padding = int(ids[~mask][0])

    def padded(ids: Any, mask: Any) -> Any:
        # Some towers read padding, so they are given open_clip's own: if ours is another, the embeddings differ.
        return ids if padding is None else ids.masked_fill(mask == 0, padding)

    return Network(
        image=Tower(
            network.encode_image, visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks
        ),
        text=Tower(lambda ids, mask: network.encode_text(padded(ids, mask)), text.transformer.resblocks),
        logits=lambda pixels, ids, mask: network.get_logits(pixels, padded(ids, mask))[0],
        preprocess=preprocess_by(pipeline),
        tokenize=tokenize,
        facts={
            "versions": f"torch {torch.__version__}, open_clip {open_clip.__version__}",
            "model": type(network).__name__,
            "tokenizer": words,
            "centre crop": CROP_FACT,
        },
    )


FORMAT = Format(
    name="open_clip",
    detect=_detect,
    read=_read,
    rules=_rules,
    obstacles=open_clip_obstacles,
    write=_write,
    load=_load,
    ignore=(*OPENAI_SIZES, "*attn_mask"),
    tensors=_tensors,
)

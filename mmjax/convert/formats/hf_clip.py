"""Dual encoders to and from folders that `transformers.CLIPModel` and `CLIPProcessor` load.

Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021;
huggingface/transformers 5.23.0, `models/clip`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmjax.convert.folder import new_folder
from mmjax.convert.formats._hf_clip_config import from_config, obstacles, to_config
from mmjax.convert.formats._hf_clip_parity import verify_model
from mmjax.convert.hf_folder import (
    read_json,
    read_preprocessing,
    read_tensors,
    read_tokenizer,
    write_json,
    write_preprocessing,
    write_tensors,
    write_tokenizer,
)
from mmjax.convert.parity import Report
from mmjax.convert.rules import CONV, DENSE, ConversionError, Rule, dense, layer_norm, to_foreign, to_params
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder, unstack_layers


def _layer_rules(tower: str, name: str) -> tuple[Rule, ...]:
    block, layer = f"{tower}/encoder/block_{{i}}", f"{name}.encoder.layers.{{i}}"
    return (
        *layer_norm(f"{block}/ln_1", f"{layer}.layer_norm1"),
        *dense(f"{block}/attn/query", f"{layer}.self_attn.q_proj"),
        *dense(f"{block}/attn/key", f"{layer}.self_attn.k_proj"),
        *dense(f"{block}/attn/value", f"{layer}.self_attn.v_proj"),
        *dense(f"{block}/attn/out", f"{layer}.self_attn.out_proj"),
        *layer_norm(f"{block}/ln_2", f"{layer}.layer_norm2"),
        *dense(f"{block}/mlp/fc1", f"{layer}.mlp.fc1"),
        *dense(f"{block}/mlp/fc2", f"{layer}.mlp.fc2"),
    )


RULES = (
    Rule("image/patch_embed/kernel", "vision_model.embeddings.patch_embedding.weight", CONV),
    Rule("image/class_embedding", "vision_model.embeddings.class_embedding"),
    Rule("image/position_embedding", "vision_model.embeddings.position_embedding.weight"),
    *layer_norm("image/ln_pre", "vision_model.pre_layrnorm"),
    *_layer_rules("image", "vision_model"),
    *layer_norm("image/ln_post", "vision_model.post_layernorm"),
    Rule("image/proj/kernel", "visual_projection.weight", DENSE),
    Rule("text/token_embedding/embedding", "text_model.embeddings.token_embedding.weight"),
    Rule("text/position_embedding", "text_model.embeddings.position_embedding.weight"),
    *_layer_rules("text", "text_model"),
    *layer_norm("text/ln_final", "text_model.final_layer_norm"),
    Rule("text/proj/kernel", "text_projection.weight", DENSE),
    Rule("log_scale", "logit_scale"),
)


class Imported(NamedTuple):
    """What a folder holds.

    Attributes:
      model: the towers.
      params: their parameters, float32.
      tokenizer: for its texts.
      image: preprocessing of its pictures.
      context_length: tokens a text may have.
    """

    model: DualEncoder
    params: dict[str, Any]
    tokenizer: Tokenizer
    image: ImageSpec
    context_length: int


def export_model(
    model: DualEncoder,
    params: Mapping[str, Any],
    *,
    tokenizer: Tokenizer,
    image: ImageSpec,
    context_length: int,
    out: str | Path,
    verify: bool = False,
) -> Report | None:
    """Writes the folder `out`: config, weights, tokenizer, preprocessing. Needs no PyTorch, unless it verifies.

    Args:
      model: the towers.
      params: their parameters, unrolled or scanned as the towers are.
      tokenizer: for the texts.
      image: preprocessing of the pictures.
      context_length: tokens a text may have.
      out: the folder to make; it may not exist.
      verify: whether to compare the folder with the model, see `verify_model`; the report is then in the folder, as
        `parity.json` and `parity.md`.

    Returns:
      The report, when verified.

    Raises:
      ConversionError: HF CLIP cannot express the model, or the parameters do not fit it, or the implementations
        differ. All reasons are listed, and nothing is left behind.
      FileExistsError: `out` exists.
      MissingExtraError: `verify` without `torch` and `transformers`.
    """
    description = {"tokenizer": tokenizer, "image": image, "context_length": context_length}
    problems = obstacles(model, **description)
    if problems:
        raise ConversionError("HF CLIP cannot express this model", problems)
    tensors = to_foreign(unstack_layers(params), RULES, expected=_shapes(model, image.size))
    config = to_config(model, tokenizer=tokenizer, image_size=image.size, log_scale=float(tensors["logit_scale"]))
    with new_folder(out) as folder:
        write_json(folder / "config.json", config)
        write_tensors(folder, tensors)
        write_tokenizer(folder, tokenizer, context_length=context_length, processor="CLIPProcessor")
        write_preprocessing(folder, image, processor="CLIPProcessor")
        if not verify:
            return None
        report = verify_model(folder, model, params, **description)
        report.write(folder)
        return report


def import_model(folder: str | Path) -> Imported:
    """Reads a folder of `transformers.CLIPModel`, without PyTorch.

    Args:
      folder: has `config.json`, `model.safetensors` or its shards, the tokenizer's files, `preprocessor_config.json`.

    Returns:
      Model, parameters, tokenizer and preprocessing.

    Raises:
      ConversionError: a file is missing, a setting has no counterpart, the files disagree, or tensors do not fit; all
        reasons of the kind are listed.
    """
    folder = Path(folder)
    model = from_config(read_json(folder / "config.json"))
    image, tokenizer = read_preprocessing(folder), read_tokenizer(folder)
    context_length = model.text.context_length
    problems = obstacles(model, tokenizer=tokenizer, image=image, context_length=context_length)
    if problems:
        raise ConversionError(f"the files of {folder} disagree", problems)
    expected = _shapes(model, image.size)
    params = to_params(read_tensors(folder), RULES, expected=expected, ignore=("*.position_ids",))
    return Imported(model, params, tokenizer, image, context_length)


def _shapes(model: DualEncoder, size: int) -> Mapping[str, Any]:
    """The parameter tree of the unrolled model, as shapes."""
    unrolled = model.clone(image=model.image.clone(scan=False), text=model.text.clone(scan=False))
    inputs = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(unrolled.init, jax.random.key(0), *inputs)["params"]

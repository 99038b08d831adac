"""A frozen tower over a whole source, into a feature bank."""

import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax import parallel
from mmjax._checks import check_choice
from mmjax.data.bank import BankInfo, Block, FeatureBank, load_blocks, save_blocks, write_bank
from mmjax.data.batching import TooManyBadRecordsError
from mmjax.data.storage import refuse_existing
from mmjax.data.transforms import TransformConfig
from mmjax.data.views import describe_image_views, describe_text_views, view_batches
from mmjax.evaluate.embed import Encoders, image_inputs, text_inputs
from mmjax.method import Params

_NO_EFFECT = ("parent", "name", "remat", "attention", "dropout_rate", "patch_dropout")


def embed_bank(
    encoders: Encoders,
    params: Params,
    source: Any,
    out: str | os.PathLike[str],
    *,
    modality: str,
    description: Mapping[str, Any],
    tower: Mapping[str, Any],
    origin: Mapping[str, Any],
    epochs: int = 1,
    transforms: Sequence[TransformConfig] = (),
    caption_weights: Sequence[float] | None = None,
    seed: int = 0,
    dtype: str = "float32",
    max_bad_share: float = 0.01,
    num_workers: int = 0,
    num_threads: int = 0,
) -> FeatureBank:
    """Embeds every record of a source, in each of several epochs of random views, and writes the bank.

    The views are those that `train_batches` shows with the same seed, transforms and caption weights. Of several
    processes, which all call it, each embeds some of the batches on its own devices; the bank is that of one process.

    Args:
      encoders: of the model; the one of `modality` is run. Their mesh has this process's devices only, see
        `parallel.local_mesh`.
      params: of the model.
      source: random access to records.
      out: the folder to make; it must not exist. All processes must see it.
      modality: "image" or "text".
      description: of the source, from `mmjax.data.bank.describe_source`.
      tower: its settings, from `describe_tower`.
      origin: where `params` are from, for the reader.
      epochs: how many epochs of views to store; more than one where something about them is random.
      transforms: random transforms of pictures.
      caption_weights: how a text's caption is chosen.
      seed: of the random numbers.
      dtype: to store, "float32" or "float16".
      max_bad_share: share of unreadable records at which it stops.
      num_workers, num_threads: see `train_batches`.

    Returns:
      The bank.

    Raises:
      ValueError: the mesh reaches over processes, several epochs would be equal, or an embedding is not finite.
      FileExistsError: `out` exists.
      TooManyBadRecordsError: more than `max_bad_share` of the records cannot be read.
      ConfigError: another process stopped; the message tells why.
    """
    check_choice("embed_bank", "modality", modality, ("image", "text"))
    process, processes = jax.process_index(), jax.process_count()
    if any(device.process_index != process for device in encoders.mesh.devices.flat):
        raise ValueError(
            f"embed_bank: the encoders' mesh has devices of several of {processes} processes, and each embeds another "
            "part; make the encoders on parallel.local_mesh()"
        )
    count = encoders.batch_size
    if modality == "image":
        image = image_inputs(encoders)
        inputs: dict[str, Any] = {"image": image, "transforms": transforms}
        example = {"image": jax.ShapeDtypeStruct((count, image.size, image.size, 3), jnp.float32)}
        preprocessing, views = describe_image_views(image, transforms=transforms, seed=seed)
    else:
        tokenizer, length = text_inputs(encoders)
        settings: dict[str, Any] = {"context_length": length, "caption_weights": caption_weights}
        inputs = {"tokenizer": tokenizer, **settings}
        example = {
            "text": jax.ShapeDtypeStruct((count, length), jnp.int32),
            "text_mask": jax.ShapeDtypeStruct((count, length), jnp.bool_),
        }
        preprocessing, views = describe_text_views(tokenizer, **settings, seed=seed)
    if epochs > 1 and "seed" not in views:
        raise ValueError(f"embed_bank: {epochs} epochs would be equal, nothing random is among {views}; store 1")
    batches = view_batches(
        source,
        batch_size=encoders.batch_size,
        epochs=epochs,
        seed=seed,
        max_bad_share=max_bad_share if processes == 1 else 1.0,  # several ask for the share of all below
        num_workers=num_workers,
        num_threads=num_threads,
        shard=(process, processes),
        **inputs,
    )
    encode, params = encoders.functions[modality], parallel.on_mesh(params, encoders.mesh)
    info = BankInfo(
        modality=modality,
        source=description,
        records=len(source),
        preprocessing=preprocessing,
        views=views,
        epochs=epochs,
        tower=tower,
        params_hash=parallel.params_hash(tower_params(params, modality)),
        dim=jax.eval_shape(encode, params, example).shape[-1],
        dtype=dtype,
        origin=origin,
    )

    def blocks() -> Iterator[Block]:
        for epoch, batch in batches:
            index, keys, mask = (batch.pop(name) for name in ("index", "key", "mask"))
            embeds = encode(params, parallel.put_shared_batch(batch, encoders.mesh))
            yield Block(epoch, index[mask], keys[mask], np.asarray(embeds, np.float32)[mask])

    if processes == 1:
        write_bank(out, blocks(), info=info)
    else:
        _write_together(Path(out), blocks(), info, max_bad_share)
    return FeatureBank(out)


def _write_together(out: Path, blocks: Iterator[Block], info: BankInfo, max_bad_share: float) -> None:
    """Every process saves its blocks, and the first one makes a bank of them all."""
    parts = out.with_name(f".{out.name}.parts")
    files = [parts / f"{process:05d}" for process in range(jax.process_count())]

    def prepare() -> None:
        refuse_existing(out)
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)

    def save() -> int:
        if not parts.is_dir():
            raise ValueError(
                f"embed_bank: this process does not see {parts}, which the first one has made; give a folder that all "
                "processes share"
            )
        return save_blocks(files[jax.process_index()], blocks)

    try:
        parallel.on_first_process(prepare)
        total = info.records * info.epochs
        missing = total - sum(parallel.gather(parallel.together(save)))
        if missing > max_bad_share * total:
            raise TooManyBadRecordsError(
                f"{missing} of {total} records cannot be read, more than max_bad_share={max_bad_share}; the logs "
                "of the processes name each"
            )
        joined = itertools.chain.from_iterable(map(load_blocks, files))
        parallel.on_first_process(lambda: write_bank(out, joined, info=info))
    finally:
        if parallel.is_first_process():
            shutil.rmtree(parts, ignore_errors=True)


def describe_tower(tower: nn.Module) -> dict[str, Any]:
    """A tower's class and settings as JSON has them, without those that change no embedding.

    >>> describe_tower(nn.Dense(3, use_bias=False, param_dtype=jnp.bfloat16))["param_dtype"]
    'bfloat16'
    """
    fields = {field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)}
    settings = {name: _plain(value) for name, value in fields.items() if name not in _NO_EFFECT}
    return {"class": type(tower).__name__, **settings}


def tower_params(params: Params, modality: str) -> Params:
    """The part of the parameters that belongs to a modality's tower: its subtree, or all where there is none."""
    return params.get(modality, params)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    try:
        return str(jnp.dtype(value))
    except TypeError:
        return getattr(value, "__name__", type(value).__name__)

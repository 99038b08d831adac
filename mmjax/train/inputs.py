"""From a config to the source, tokenizer and preprocessing of a run."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mmjax import parallel
from mmjax.config import ConfigError, Section, call
from mmjax.data import CorruptRecordError, ImageSpec, Tokenizer, train_batches, train_bpe
from mmjax.data.sources import build_source
from mmjax.evaluate import Encoders, make_encoders
from mmjax.method import Method
from mmjax.train import workdir as workdirs
from mmjax.train.features import open_banks
from mmjax.train.init_from import fill_settings


class Inputs(NamedTuple):
    """What a run reads.

    Attributes:
      source: random access to the training records.
      tokenizer: of the run, from the workdir once it is there.
      image: preprocessing of its pictures.
      context_length: tokens a text may have.
      taken: settings that came with the towers of `config.init_from`.
    """

    source: Sequence[dict[str, Any]]
    tokenizer: Tokenizer
    image: ImageSpec
    context_length: int
    taken: Mapping[str, Any]

    def save(self, workdir: pathlib.Path) -> None:
        """Writes what reading the run back needs beside its config."""
        workdirs.write_taken(workdir, self.taken)
        workdirs.write_inputs(workdir, tokenizer=self.tokenizer, image=self.image)

    def encoders(self, method: Method, mesh: Mesh) -> Encoders:
        """The method's encoders with this run's way of reading pictures and texts."""
        return make_encoders(
            method,
            tokenizer=self.tokenizer,
            image=self.image,
            context_length=self.context_length,
            mesh=mesh,
        )


def build_inputs(config: Section, workdir: pathlib.Path) -> Inputs:
    """Opens the training source, and trains the tokenizer or, where the workdir holds a run, loads it.

    What the inputs, and the runs that this one starts from, decide about data and model is filled into the config.
    """
    taken = fill_settings(config, workdir)
    data = config.data
    source = build_source(**data.train.read_all())
    image = call(ImageSpec, data.image)
    if (workdir / "config.json").exists():
        tokenizer = Tokenizer.load(workdir / "tokenizer.json")
        data.tokenizer.read_all()
    else:
        tokenizer = call(_tokenizer, data.tokenizer, source)
    workdirs.resolve(config, tokenizer=tokenizer, image=image)
    return Inputs(source, tokenizer, image, data.context_length, taken)


def training_batches(inputs: Inputs, data: Section, *, batch_size: int, seed: int) -> Any:
    """This host's part of the run's endless stream of batches: an iterator with `get_state`, `set_state`, `close`."""
    read_elsewhere = ("train", "image", "tokenizer", "context_length", "features")
    settings = {name: data[name] for name in data if name not in read_elsewhere}
    arguments = {
        "batch_size": batch_size,
        "image": inputs.image,
        "tokenizer": inputs.tokenizer,
        "context_length": inputs.context_length,
        "seed": seed,
        "features": open_banks(data.get("features", {}), data.train.plain()),
        "shard": (jax.process_index(), jax.process_count()),
    }
    # A bank of other views on one host stops them all.
    return parallel.together(lambda: call(train_batches, settings, inputs.source, **arguments))


def _tokenizer(
    source: Sequence[dict[str, Any]],
    *,
    file: str | None = None,
    vocab_size: int = 1024,
    corpus_size: int = 4096,
) -> Tokenizer:
    """A tokenizer from a file, or a byte-level BPE trained on the captions of the first records."""
    if file is not None:
        if not pathlib.Path(file).is_file():
            raise ConfigError(f"config.data.tokenizer.file: no such file {file}")
        return Tokenizer.load(file)
    return train_bpe(_captions(source, corpus_size), vocab_size=vocab_size)


def _captions(source: Sequence[dict[str, Any]], count: int) -> Iterator[str]:
    """Captions of the first records; unreadable ones are the pipeline's to count and report."""
    for index in range(min(count, len(source))):
        with contextlib.suppress(CorruptRecordError):
            yield from source[index]["captions"]

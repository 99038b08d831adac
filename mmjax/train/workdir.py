"""The folder of a run: its config, tokenizer and preprocessing, and reading a run back from it."""

import fcntl
import json
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from jax.sharding import Mesh

from mmjax.config import ConfigError, Section, call, difference, to_json
from mmjax.data import ImageSpec, Tokenizer
from mmjax.evaluate import Encoders, make_encoders
from mmjax.method import Method
from mmjax.methods import build_method
from mmjax.models import DualEncoder, build_dual_encoder
from mmjax.train.checkpoint import CheckpointError, restore_params


class Run(NamedTuple):
    """A trained run, read from its workdir.

    Attributes:
      workdir: its folder.
      config: the resolved config, nested dicts.
      step: of the checkpoint.
      method: built from the config.
      model: the towers alone.
      params: of the checkpoint.
      tokenizer: of the run.
      image: preprocessing of its pictures.
      context_length: tokens a text may have.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    step: int
    method: Method
    model: DualEncoder
    params: dict[str, Any]
    tokenizer: Tokenizer
    image: ImageSpec
    context_length: int


def encoders(run: Run, mesh: Mesh) -> Encoders:
    """The run's encoders with its way of reading pictures and texts."""
    return make_encoders(
        run.method, tokenizer=run.tokenizer, image=run.image, context_length=run.context_length, mesh=mesh
    )


@contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir for one process.

    Raises:
      ConfigError: another process holds it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{workdir} is in use by another run; wait for it or choose another workdir") from None
        yield


def check_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Checks that a workdir which holds a run holds one of this config.

    Raises:
      ConfigError: it holds another; the message lists the differences.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    changes = difference(*(_without_placement(c) for c in (json.loads(path.read_text(encoding="utf-8")), config)))
    if changes:
        raise ConfigError(
            f"{workdir} holds a run of another config; choose another workdir, or delete it. Differences:\n  "
            + "\n  ".join(changes)
        )


def _without_placement(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config computes, without where: a run goes on on other devices."""
    return {key: value for key, value in config.items() if key not in ("mesh", "sharding")}


def write_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes the folder that of a run of this config, for good: a start that fails before leaves it free."""
    path = workdir / "config.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(to_json(config), encoding="utf-8")
    fresh.replace(path)


def resolve(config: Section, *, tokenizer: Tokenizer, image: ImageSpec) -> None:
    """Fills in what the inputs decide: the size of the pictures, the vocabulary and the length of the texts."""
    text = {"vocab_size": tokenizer.vocab_size, "context_length": config.data.context_length}
    config.fill({"model": {"image": {"image_size": image.size}, "text": text}})


def load_run(path: str | pathlib.Path, *, step: int | None = None, ema: bool = False) -> Run:
    """The run whose workdir is `path`, with the parameters of its newest checkpoint.

    Args:
      path: the workdir, or one checkpoint `<workdir>/checkpoints/<step>` of it.
      step: which checkpoint, when `path` is a workdir.
      ema: whether to take the moving average of the parameters.

    Raises:
      CheckpointError: the folder is no workdir, or holds no such checkpoint.
    """
    workdir = pathlib.Path(path)
    if workdir.parent.name == "checkpoints" and workdir.name.isdigit():
        workdir, step = workdir.parent.parent, int(workdir.name)
    if not (workdir / "config.json").is_file():
        raise CheckpointError(f"{workdir} is no workdir of a run: it has no config.json")
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    step, params = restore_params(workdir / "checkpoints", step=step, ema=ema)
    tokenizer = Tokenizer.load(workdir / "tokenizer.json")
    image = ImageSpec.from_json((workdir / "image.json").read_text(encoding="utf-8"))
    section = Section(config)
    resolve(section, tokenizer=tokenizer, image=image)
    return Run(
        workdir=workdir,
        config=config,
        step=step,
        method=build_method(section),
        model=call(build_dual_encoder, section.model),
        params=params,
        tokenizer=tokenizer,
        image=image,
        context_length=config["data"]["context_length"],
    )

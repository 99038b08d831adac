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
from mmjax.methods.pretrained import pretrained
from mmjax.models import DualEncoder, build_dual_encoder, without_heads
from mmjax.train.checkpoint import CheckpointError, restore_params

TAKEN_FILE = "init_from.json"


class Run(NamedTuple):
    """A trained run, read from its workdir.

    Attributes:
      workdir: its folder.
      config: the resolved config, nested dicts.
      step: of the checkpoint.
      method: built from the config.
      model: the towers alone.
      params: of the checkpoint.
      tokenizer: of the run; None where an imported model came without.
      image: preprocessing of its pictures; None likewise.
      context_length: tokens a text may have; None without a text tower.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    step: int
    method: Method
    model: DualEncoder
    params: dict[str, Any]
    tokenizer: Tokenizer | None
    image: ImageSpec | None
    context_length: int | None


class Settings(NamedTuple):
    """A run but for its checkpoints.

    Attributes:
      workdir: its folder.
      config: the resolved config, nested dicts.
      model, tokenizer, image, context_length: see `Run`.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    model: DualEncoder
    tokenizer: Tokenizer | None
    image: ImageSpec | None
    context_length: int | None


def encoders(run: Run, mesh: Mesh, *, heads: bool = True) -> Encoders:
    """The run's encoders with its way of reading pictures and texts.

    Args:
      run: the run.
      mesh: devices that share a batch.
      heads: whether embeddings are those after the heads; a feature bank holds what a tower gives before.
    """
    method = run.method if heads else pretrained(without_heads(run.model))
    return make_encoders(method, tokenizer=run.tokenizer, image=run.image, context_length=run.context_length, mesh=mesh)


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
    _write_json(workdir / "config.json", config)


def resolve(config: Section, *, tokenizer: Tokenizer | None, image: ImageSpec | None) -> None:
    """Fills in what the inputs decide: the size of the pictures, the vocabulary and the length of the texts."""
    model = config.model
    towers = [name for name in ("image", "text") if model.get("preset") or name in model]
    if image is not None and "image" in towers:
        config.fill({"model": {"image": {"image_size": image.size}}})
    if tokenizer is not None and "text" in towers:
        text = {"vocab_size": tokenizer.vocab_size, "context_length": config.data.context_length}
        config.fill({"model": {"text": text}})


def load_settings(path: str | pathlib.Path) -> Settings:
    """What a run is, without its parameters.

    Args:
      path: the workdir, or one checkpoint of it.

    Raises:
      CheckpointError: the folder is no workdir.
    """
    workdir, _ = _locate(path)
    if not (workdir / "config.json").is_file():
        raise CheckpointError(f"{workdir} is no workdir of a run: it has no config.json")
    tokenizer_file, image_file = workdir / "tokenizer.json", workdir / "image.json"
    tokenizer = Tokenizer.load(tokenizer_file) if tokenizer_file.is_file() else None
    image = ImageSpec.from_json(image_file.read_text(encoding="utf-8")) if image_file.is_file() else None
    config = Section(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    config.fill(taken_settings(workdir))
    resolve(config, tokenizer=tokenizer, image=image)
    model = call(build_dual_encoder, config.model)
    return Settings(workdir, config.plain(), model, tokenizer, image, config.get("data", {}).get("context_length"))


def taken_settings(workdir: pathlib.Path) -> dict[str, Any]:
    """The settings that a run took from those it started from, see `mmjax.train.init_from`."""
    path = workdir / TAKEN_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_inputs(workdir: pathlib.Path, *, tokenizer: Tokenizer | None, image: ImageSpec | None) -> None:
    """Writes `tokenizer.json` and `image.json`, which `load_settings` reads; what is None is absent."""
    if tokenizer is not None:
        tokenizer.save(workdir / "tokenizer.json")
    if image is not None:
        (workdir / "image.json").write_text(image.to_json(), encoding="utf-8")


def write_taken(workdir: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Keeps what `taken_settings` reads; of an earlier start that failed nothing is left."""
    if any(settings.values()):
        _write_json(workdir / TAKEN_FILE, settings)
    else:
        (workdir / TAKEN_FILE).unlink(missing_ok=True)


def load_run(path: str | pathlib.Path, *, step: int | None = None, ema: bool = False) -> Run:
    """The run whose workdir is `path`, with the parameters of its newest checkpoint.

    Args:
      path: the workdir, or one checkpoint `<workdir>/checkpoints/<step>` of it.
      step: which checkpoint, when `path` is a workdir.
      ema: whether to take the moving average of the parameters.

    Raises:
      CheckpointError: the folder is no workdir, or holds no such checkpoint.
    """
    settings = load_settings(path)
    _, named = _locate(path)
    step, params = restore_params(settings.workdir / "checkpoints", step=step if named is None else named, ema=ema)
    method = build_method(Section(settings.config))
    return Run(step=step, method=method, params=params, **settings._asdict())


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    fresh = path.with_suffix(".tmp")
    fresh.write_text(to_json(content), encoding="utf-8")
    fresh.replace(path)


def _locate(path: str | pathlib.Path) -> tuple[pathlib.Path, int | None]:
    """The workdir, and the step where one checkpoint of it is named."""
    path = pathlib.Path(path)
    if path.parent.name == "checkpoints" and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None

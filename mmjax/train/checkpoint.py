"""Checkpoints: the one file that touches Orbax.

A checkpoint of step n is `<folder>/<n>/` with four items: `params` (all parameters), `training` (optimizer state,
statistics, moving average, random key, step), `data` (the iterator's state, JSON) and `config` (JSON). Parameters are
readable without the rest.
"""

import contextlib
import logging
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mmjax import paths
from mmjax.optim import Partition
from mmjax.train.state import TrainState


class CheckpointError(ValueError):
    """A checkpoint is missing, or is not of the tree asked for."""


class Restored(NamedTuple):
    """A run's state and the state of its data iterator."""

    state: TrainState
    data: Mapping[str, Any]


class Checkpointer:
    """Saves and restores the whole of a run, asynchronously, by policy.

    Args:
      folder: where checkpoints lie.
      every_steps: a step divisible by it is saved.
      every_minutes: a save is also due so long after the last; 0 never.
      keep: number of checkpoints kept; None keeps all.
      keep_every: a step divisible by it is never deleted.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        every_steps: int = 1000,
        every_minutes: float = 0.0,
        keep: int | None = 3,
        keep_every: int | None = None,
    ):
        self.folder = pathlib.Path(folder).absolute()
        self._every_steps = every_steps
        self._every_seconds = 60.0 * every_minutes
        self._saved_at = time.monotonic()
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, keep_period=keep_every, cleanup_tmp_directories=True
            ),
            item_handlers=_handlers(),
        )

    @property
    def latest(self) -> int | None:
        """The newest step saved."""
        return self._manager.latest_step()

    @property
    def late(self) -> bool:
        """Whether a save is due by this process's clock."""
        return 0.0 < self._every_seconds <= time.monotonic() - self._saved_at

    def due(self, step: int, *, late: bool | None = None) -> bool:
        """Whether the policy wants step `step` saved.

        Args:
          step: just made.
          late: `self.late`, on which several processes must agree first; None asks this one's clock.
        """
        return step % self._every_steps == 0 or (self.late if late is None else late)

    def save(
        self,
        step: int,
        state: TrainState,
        partition: Partition,
        *,
        data: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        """Starts saving; returns when the arrays have left the device. A step that is there already is left alone."""
        if step == self.latest:
            return
        self._saved_at = time.monotonic()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(dict(partition.join(state.trainable, state.frozen))),
                training=ocp.args.StandardSave(_training(state)),
                data=ocp.args.JsonSave(dict(data)),
                config=ocp.args.JsonSave(dict(config)),
            ),
            force=True,
        )

    def restore(self, state: TrainState, partition: Partition, *, step: int | None = None) -> Restored:
        """The state saved at `step` (default: the newest), placed as `state` is.

        Args:
          state: arrays or shapes with shardings; the checkpoint must be of exactly this tree.
          partition: splits the parameters.
          step: which checkpoint.

        Raises:
          CheckpointError: there is none, or its tree differs; the message lists the differences.
        """
        step = _existing(self._manager, step)
        params = dict(partition.join(state.trainable, state.frozen))
        wanted = {"params": params, "training": _training(state)}
        abstract = jax.tree.map(_abstract, wanted)
        _check_tree(self._manager, step, abstract)
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract["params"]),
                training=ocp.args.StandardRestore(abstract["training"]),
                data=ocp.args.JsonRestore(),
            ),
        )
        trainable, frozen = partition.split(items["params"])
        return Restored(TrainState(trainable=trainable, frozen=frozen, **items["training"]), items["data"])

    def wait(self) -> None:
        """Returns when everything is written; raises what a background save raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of threads."""
        self._manager.close()


def restore_params(
    folder: str | pathlib.Path,
    params: Mapping[str, Any] | None = None,
    *,
    step: int | None = None,
    ema: bool = False,
) -> tuple[int, dict[str, Any]]:
    """The parameters of a checkpoint, without optimizer or data.

    Args:
      folder: of the checkpoints.
      params: arrays or shapes that the checkpoint must match exactly; None takes the tree that is there.
      step: which; None is the newest.
      ema: whether trainable parameters come from the moving average.

    Returns:
      The step and the parameters.

    Raises:
      CheckpointError: there is no checkpoint, no moving average, or the tree differs.
    """
    with _reader(folder) as manager:
        step = _existing(manager, step)
        metadata = manager.item_metadata(step)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def saved(item: str) -> Any:  # placed here: the devices that saved it may not exist
            place = lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding)  # noqa: E731
            return jax.tree.map(place, _tree(metadata[item]))

        if params is not None:
            abstract = jax.tree.map(_abstract, dict(params))
            _check_tree(manager, step, {"params": abstract})
        else:
            abstract = saved("params")
        restored = manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))["params"]
        if not ema:
            return step, restored
        training = ocp.args.Composite(training=ocp.args.StandardRestore(saved("training")))
        average = manager.restore(step, args=training)["training"]["ema"]
        if average is None:
            raise CheckpointError(
                f"the checkpoint of step {step} in {folder} holds no moving average; train with ema.decay"
            )
        return step, paths.unflatten({**paths.flatten(restored), **paths.flatten(average)})


def inspect(folder: str | pathlib.Path, *, step: int | None = None) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> (shape, dtype) of every array of a checkpoint, read without loading any.

    Raises:
      CheckpointError: there is no checkpoint.
    """
    with _reader(folder) as manager:
        step = _existing(manager, step)
        metadata = manager.item_metadata(step)
        return {
            path: (tuple(leaf.shape), str(jnp.dtype(leaf.dtype)))
            for item in ("params", "training")
            for path, leaf in _leaves({item: _tree(metadata[item])}).items()
        }


def _handlers() -> dict[str, Any]:
    return {
        "params": ocp.StandardCheckpointHandler(),
        "training": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(),
        "config": ocp.JsonCheckpointHandler(),
    }


@contextlib.contextmanager
def _reader(folder: str | pathlib.Path):
    folder = pathlib.Path(folder).absolute()
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoints: {folder} is no folder")
    options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        manager = ocp.CheckpointManager(folder, options=options, item_handlers=_handlers())
    finally:
        logging.getLogger("absl").setLevel(level)
    try:
        yield manager
    finally:
        manager.close()


def _existing(manager: ocp.CheckpointManager, step: int | None) -> int:
    steps = sorted(manager.all_steps())
    if not steps:
        raise CheckpointError(f"no checkpoint in {manager.directory}")
    if step is None:
        return steps[-1]
    if step not in steps:
        raise CheckpointError(f"no checkpoint of step {step} in {manager.directory}; there are {steps}")
    return step


def _training(state: TrainState) -> dict[str, Any]:
    names = ("step", "opt_state", "stats", "ema", "key", "healthy")
    return {name: getattr(state, name) for name in names}


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _tree(metadata: Any) -> Any:
    return getattr(metadata, "tree", metadata)


def _leaves(tree: Any) -> dict[str, Any]:
    """Leaves by path, with one spelling of names for dicts, lists and named tuples."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    name = lambda key: str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))  # noqa: E731
    return {"/".join(map(name, path)): leaf for path, leaf in flat}


def _check_tree(manager: ocp.CheckpointManager, step: int, wanted: Mapping[str, Any]) -> None:
    """Orbax pads and cuts arrays of another shape without a word, so trees are compared first."""
    metadata = manager.item_metadata(step)
    saved = {p: leaf for item in wanted for p, leaf in _leaves({item: _tree(metadata[item])}).items()}
    asked = _leaves(dict(wanted))
    lines = [f"only in the checkpoint: {p} {tuple(saved[p].shape)}" for p in saved if p not in asked]
    lines += [f"only in this run: {p} {tuple(asked[p].shape)}" for p in asked if p not in saved]
    lines += [
        f"{p}: {tuple(saved[p].shape)} {jnp.dtype(saved[p].dtype)} in the checkpoint, "
        f"{tuple(asked[p].shape)} {jnp.dtype(asked[p].dtype)} in this run"
        for p in asked
        if p in saved and (tuple(saved[p].shape), saved[p].dtype) != (tuple(asked[p].shape), asked[p].dtype)
    ]
    if lines:
        shown = lines[:20] + ([f"... and {len(lines) - 20} more"] if len(lines) > 20 else [])
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} is of another tree:\n  " + "\n  ".join(shown)
        )

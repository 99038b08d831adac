"""The loop over steps: update, log, evaluate, save."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mmjax import parallel
from mmjax.evaluate import Evaluator, run_evaluators
from mmjax.method import Batch, Params
from mmjax.optim import Partition
from mmjax.train.checkpoint import Checkpointer
from mmjax.train.logging import MetricWriter, ProgressLine
from mmjax.train.position import save_position
from mmjax.train.signals import StopSignal
from mmjax.train.state import TrainState
from mmjax.train.step import Step


class NonFiniteError(FloatingPointError):
    """The loss or a gradient was not finite."""


class CompiledStep:
    """A train step compiled ahead of time, once for every shape of batch, its state donated.

    Args:
      step: the update.
      mesh: where it runs.
      shardings: a tree like the state: where it lies before and after; None repeats it on all devices.
    """

    def __init__(self, step: Step, mesh: Mesh, shardings: Any = None):
        everywhere = parallel.replicated(mesh)
        out = (everywhere if shardings is None else shardings, everywhere)
        self._step = jax.jit(parallel.by_examples(step, mesh), donate_argnums=0, out_shardings=out)
        # Losses that compare examples ask the context for the mesh that splits them (`parallel.sharded`).
        self._mesh = mesh
        self._compiled: dict[Any, jax.stages.Compiled] = {}

    def trace(self, state: TrainState, batch: Batch) -> jax.stages.Traced:
        """The program for batches of this shape, not lowered to any platform; arrays may be `jax.ShapeDtypeStruct`."""
        with self._in_mesh():
            return self._step.trace(state, batch)

    def compile(self, state: TrainState, batch: Batch) -> jax.stages.Compiled:
        """The program for batches of this shape."""
        shapes = tuple((name, array.shape, array.dtype) for name, array in sorted(batch.items()))
        if shapes not in self._compiled:
            with self._in_mesh():
                self._compiled[shapes] = self._step.lower(state, batch).compile()
        return self._compiled[shapes]

    def _in_mesh(self) -> contextlib.AbstractContextManager[Any]:
        return jax.set_mesh(self._mesh) if self._mesh.size > 1 else contextlib.nullcontext()

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        return self.compile(state, batch)(state, batch)


class Fitted(NamedTuple):
    """The state after the loop, the last evaluation, and whether all steps were made."""

    state: TrainState
    results: dict[str, float]
    finished: bool


def fit(
    step: CompiledStep,
    state: TrainState,
    batches: Any,
    *,
    total: int,
    batch_size: int,
    log_every: int,
    mesh: Mesh,
    partition: Partition,
    evaluators: Sequence[Evaluator],
    checkpointer: Checkpointer,
    config: Mapping[str, Any],
    writer: MetricWriter | None,
    progress: ProgressLine | None,
    stop: StopSignal,
) -> Fitted:
    """Makes the steps from `state.step` to `total`.

    Args:
      step: the update.
      state: to start from; donated.
      batches: iterator of numpy batches with `get_state`; its state is saved with the checkpoint.
      total: number of the last step.
      batch_size: examples a step, for the log.
      log_every: steps between two lines of metrics.
      mesh: where batches go.
      partition: joins and splits parameters.
      evaluators: each runs on its own schedule, and all after the last step.
      checkpointer: saves when its policy says so, at the end, and when asked to stop.
      config: stored in each checkpoint.
      writer: of metrics; None on processes that leave it to another.
      progress: shown while it lasts; likewise.
      stop: asked between steps; received by one process, it stops all after the same step.

    Raises:
      NonFiniteError: the loss or a gradient was not finite; the state before that step is saved in `nonfinite/`.
    """
    done = int(state.step)
    results: dict[str, float] = {}
    if done >= total:
        results = dict(run_evaluators(evaluators, evaluated_params(state, partition)))
    clock, saved, agree = _Clock(done), done, parallel.Agreement(2)
    stopping, late = agree(stop.received, False)
    batches = parallel.prefetch_to_device(batches, mesh)
    while done < total and not stopping:
        state, metrics = step(state, next(batches))
        done += 1
        last = done == total
        stopping, late = agree(stop.received, checkpointer.late)
        late = late and done > saved + 1  # the processes agree a step later, on what was true before that save
        due = [e for e in evaluators if last or (e.every and done % e.every == 0)]
        log, save = last or done % log_every == 0, last or checkpointer.due(done, late=late)
        if (log or due or save) and not state.healthy:
            _stop_unhealthy(state, done, checkpointer, partition, config)
        if log:
            values = jax.device_get(metrics)
            per_second = batch_size * clock.rate(done)
            if writer is not None and progress is not None:
                writer.write(done, values)
                writer.write_timing(done, {"samples_per_second": per_second})
                progress.update(done, values, per_second=per_second)
        if due:
            results = dict(run_evaluators(due, evaluated_params(state, partition)))
            if writer is not None:
                writer.write(done, results)
        if save:
            checkpointer.save(done, state, partition, data=save_position(batches), config=config)
            saved = done
        if due or save:
            clock.restart(done)
    if done < total:  # asked to stop
        checkpointer.save(done, state, partition, data=save_position(batches), config=config)
    checkpointer.wait()
    return Fitted(state, results, finished=done == total)


def evaluated_params(state: TrainState, partition: Partition) -> Params:
    """All parameters, those that train from their moving average where there is one."""
    return partition.join(state.trainable if state.ema is None else state.ema, state.frozen)


class _Clock:
    """Steps a second since the last question."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        self._step, self._time = step, time.monotonic()

    def rate(self, step: int) -> float:
        steps, seconds = step - self._step, time.monotonic() - self._time
        self.restart(step)
        return steps / max(seconds, 1e-9)


def _stop_unhealthy(
    state: TrainState, done: int, checkpointer: Checkpointer, partition: Partition, config: Mapping[str, Any]
) -> None:
    folder = checkpointer.folder.with_name("nonfinite")
    keeper = Checkpointer(folder)
    keeper.save(int(state.step), state, partition, data={}, config=config)
    keeper.close()
    raise NonFiniteError(
        f"the loss or a gradient was not finite at step {int(state.step) + 1} (noticed at step {done}); the state "
        f"before it is in {folder}. Lower the learning rate, set optimizer.grad_clip_norm, or look at that batch"
    )

"""`train_and_evaluate(config, workdir)`: any method, resumed where it was, in a folder that speaks for itself."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from mmjax import parallel
from mmjax.config import Section, call
from mmjax.data import is_synthetic
from mmjax.evaluate import build_evaluators, report, write_results
from mmjax.method import Batch, Params
from mmjax.methods import build_method
from mmjax.optim import build_optimizer
from mmjax.train import summary
from mmjax.train import workdir as workdirs
from mmjax.train.checkpoint import Checkpointer
from mmjax.train.features import check_towers
from mmjax.train.fit import CompiledStep, evaluated_params, fit
from mmjax.train.init_from import init_from
from mmjax.train.inputs import build_inputs, training_batches
from mmjax.train.logging import MetricWriter, ProgressLine
from mmjax.train.position import restore_position
from mmjax.train.signals import StopSignal
from mmjax.train.stages import split_stages, total_steps
from mmjax.train.state import TrainState, create_state
from mmjax.train.step import make_train_step
from mmjax.train.warm_start import warm_start


class Outcome(NamedTuple):
    """What a run ended with.

    Attributes:
      params: of the last step; from the moving average, where there is one.
      results: of the last evaluation, flat names such as `retrieval/text_to_image/R@1`.
      finished: False when the run was asked to stop before its last step.
    """

    params: Params
    results: dict[str, float]
    finished: bool


def train_and_evaluate(config: Mapping[str, Any], workdir: str | pathlib.Path) -> Outcome:
    """Runs the method that `config` describes to its last step and evaluates it.

    With `config.stages`, a tuple of sections that override the others, each stage runs in a folder of its own and
    starts from the parameters that the one before ended with.

    Args:
      config: nested values, or an `ml_collections.ConfigDict`; `configs/clip.py` shows the keys.
      workdir: folder of the run; one that holds the same config is resumed, another config is an error.

    Returns:
      The last parameters and the results of the last evaluation.

    Raises:
      ConfigError: a key or value is wrong, or nothing reads it.
      NonFiniteError: the loss stopped being finite; the last good state is saved in the workdir.
    """
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    workdir = pathlib.Path(workdir)
    stages = split_stages(plain)
    if not plain.get("stages"):
        return _run(stages[0][1], workdir, start={})
    with contextlib.ExitStack() as closing:
        parallel.on_first_process(lambda: closing.enter_context(workdirs.lock(workdir)))
        parallel.together(lambda: workdirs.check_config(workdir, plain))
        parallel.on_first_process(lambda: workdirs.write_config(workdir, plain))
        outcome = Outcome({}, {}, finished=True)
        for folder, stage in stages:
            outcome = _run(stage, workdir / folder, start=outcome.params)
            if not outcome.finished:
                return outcome
        parallel.on_first_process(lambda: write_results(workdir / "result.json", outcome.results))
        return outcome


def _run(plain: Mapping[str, Any], workdir: pathlib.Path, *, start: Params) -> Outcome:
    """One stage. The numbered parts stand in the order in which they depend on one another."""
    with StopSignal() as stop, contextlib.ExitStack() as closing:
        # 1. A workdir of another config is refused before anything else.
        parallel.on_first_process(lambda: closing.enter_context(workdirs.lock(workdir)))
        parallel.together(lambda: workdirs.check_config(workdir, plain))
        config = Section(plain, "config")

        # 2. Inputs come before the model: they decide its vocabulary and the size of its pictures.
        inputs = build_inputs(config, workdir)
        mesh = call(parallel.make_mesh, config.get("mesh", {}))
        batch_size = config.batch_size
        accumulate, exact = config.get("accumulate", 1), config.get("accumulate_exactly", True)
        batches = training_batches(inputs, config.data, batch_size=batch_size, seed=config.seed)
        closing.callback(batches.close)
        beginning = batches.get_state()
        first = next(batches)
        batches.set_state(beginning)

        # 3. Shapes of the method, and the claims of optimizer and mesh on every leaf, before any parameter is made.
        total = total_steps(config, examples=len(inputs.source), batch_size=batch_size)
        method = build_method(config)
        key = jax.random.key(config.seed)
        example = parallel.put_batch(first, mesh)
        shapes = jax.eval_shape(method.init, key, example)
        optimizer = call(build_optimizer, config.optimizer, shapes.params, total_steps=total, trains=method.partition)
        partition = optimizer.partition
        plan = call(parallel.plan_sharding, config.get("sharding", {}), shapes.params, mesh)
        encoders = inputs.encoders(method, mesh)
        evaluators = build_evaluators(config.get("evals", {}), encoders)
        checkpointer = call(Checkpointer, config.get("checkpoint", {}), workdir / "checkpoints")
        closing.callback(checkpointer.close)
        decay = config.get("ema_decay")

        # 4. The state, made on the mesh.
        def initial_state(batch: Batch) -> TrainState:
            variables = method.init(jax.random.fold_in(key, 0), batch)
            return create_state(variables, optimizer, key=jax.random.fold_in(key, 1), ema=decay is not None)

        shardings = plan.shardings(jax.eval_shape(initial_state, example))
        state = jax.jit(initial_state, out_shardings=shardings)(example)
        towers = dict(config.get("init_from", {}))
        if checkpointer.latest is None:
            start = {**init_from(towers), **start}
        loaded = warm_start(partition.join(state.trainable, state.frozen), start) if start else None
        if loaded is not None:
            trainable, frozen = partition.split(loaded.params)
            state = jax.device_put(dataclasses.replace(state, trainable=trainable, frozen=frozen), shardings)
        if checkpointer.latest is None:
            check_towers(config, partition.join(state.trainable, state.frozen))

        # 5. Everything is known and nothing is trained: what nobody reads is refused, and all is said.
        update = make_train_step(method, optimizer, accumulate=accumulate, exact=exact, ema_decay=decay)
        step = CompiledStep(update, mesh, shardings)
        program = step.compile(state, example)
        log_every, tensorboard = (
            config.get("log", {}).get("every", 50),
            config.get("log", {}).get("tensorboard", True),
        )
        config.check_read()
        parallel.on_first_process(lambda: (inputs.save(workdir), workdirs.write_config(workdir, plain)))
        speaks = parallel.is_first_process()
        show = summary.show if speaks else lambda *_: None
        show(
            config,
            summary.data_line(inputs.source),
            summary.batch_table(first),
            summary.parameter_table(state.trainable, state.frozen),
            str(optimizer),
            f"{parallel.describe(mesh)}\n{plan}",
            *([str(loaded)] if loaded is not None else []),
            summary.arithmetic(
                steps=total,
                batch_size=batch_size,
                accumulate=accumulate,
                exact=exact,
                examples=len(inputs.source),
            ),
            summary.memory(program),
        )

        # 6. A resumed run takes state and data position from one checkpoint.
        if checkpointer.latest is not None:
            restored = checkpointer.restore(state, partition)
            state = restored.state
            check_towers(config, partition.join(state.trainable, state.frozen))
            repeated = restore_position(batches, restored.data)
            again = f"; {repeated} examples are read again, as other processes share them" if repeated else ""
            if speaks:
                print(f"resumed from the checkpoint of step {int(state.step)}{again}", flush=True)

        # 7. The loop.
        writer = progress = None
        if speaks:
            writer = MetricWriter(workdir, resumed_step=int(state.step), tensorboard=tensorboard)
            closing.callback(writer.close)
            progress = ProgressLine(total, done=int(state.step))
            closing.callback(progress.close)
        fitted = fit(
            step,
            state,
            batches,
            total=total,
            batch_size=batch_size,
            log_every=log_every,
            mesh=mesh,
            partition=partition,
            evaluators=evaluators,
            checkpointer=checkpointer,
            config=plain,
            writer=writer,
            progress=progress,
            stop=stop,
        )
        if fitted.finished:
            synthetic = is_synthetic(inputs.source)
            results = {"step": total, "trained_on_synthetic_data": synthetic, **fitted.results}
            parallel.on_first_process(lambda: write_results(workdir / "result.json", results))
            shown = report.held_out(plain.get("evals", {}))
            params = evaluated_params(fitted.state, partition)
            with tempfile.TemporaryDirectory() as elsewhere:  # all processes encode for it, and one keeps it
                out = (workdir if speaks else pathlib.Path(elsewhere)) / "report.html"
                report.write_report(workdir, encoders=encoders, params=params, data=shown, step=total, out=out)
        return Outcome(evaluated_params(fitted.state, partition), fitted.results, fitted.finished)

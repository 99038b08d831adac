"""What a run will need, before there are the devices to run it: parameters, FLOPs, memory, traffic between devices."""

import contextlib
import math
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from rich.console import Group
from rich.table import Table

from mmjax import parallel
from mmjax._checks import check_choice
from mmjax.config import ConfigError, Section, call
from mmjax.method import Batch, Params
from mmjax.methods import build_method
from mmjax.optim import build_optimizer
from mmjax.train import summary
from mmjax.train.fit import CompiledStep
from mmjax.train.flops import count_flops
from mmjax.train.inputs import build_inputs, training_batches
from mmjax.train.stages import split_stages, total_steps
from mmjax.train.state import TrainState, create_state
from mmjax.train.step import make_train_step

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_SIMULATED = "simulated"
_READ_BY_THE_LOOP = ("checkpoint", "evals", "init_from", "log")
_COMPILER_OPTIONS: dict[str, Any] = {
    # The code itself is never run; leaving it unoptimised changes neither buffers nor collectives.
    "xla_backend_optimization_level": 0,
    # The CPU compiler takes away the barriers of remat early, and then undoes it; those of accelerators do not.
    "xla_disable_hlo_passes": "cse_barrier_expander",
}


class Prediction(NamedTuple):
    """What a stage of a run needs.

    Attributes:
      stage: its folder, or "".
      mesh: the devices.
      batch_size: examples a step, over all devices.
      trainable, frozen: parameters, as shapes.
      flops_per_example: of matrix products in a step, see `count_flops`, the optimizer's apart.
      optimizer_flops: of matrix products in the optimizer (Muon has them), a step.
      memory: bytes on a device by what they hold; the last, "temporary", is the compiler's.
      traffic: collectives of a step.
      platform: for which the step was lowered or compiled too, or None.
      compiled_for: "simulated" CPU devices, or the kind of device that is not here.
    """

    stage: str
    mesh: Mesh
    batch_size: int
    trainable: Params
    frozen: Params
    flops_per_example: float
    optimizer_flops: int
    memory: Mapping[str, int]
    traffic: tuple[parallel.Collective, ...]
    platform: str | None
    compiled_for: str

    def __rich__(self) -> Group:
        devices, flops = self.mesh.size, self.flops_per_example
        optimizer = f", {_short(self.optimizer_flops)} a step in the optimizer" if self.optimizer_flops else ""
        lines = [
            *([f"stage {self.stage}"] if self.stage else []),
            f"{parallel.describe(self.mesh)} ({self.compiled_for})",
            f"FLOPs: {_short(flops)} an example, {_short(flops * self.batch_size / devices)} a device and step of "
            f"{self.batch_size:,} examples{optimizer}",
        ]
        memory = Table("memory a device", "MiB", title_justify="left")
        for name, size in self.memory.items():
            memory.add_row(name, f"{size / 2**20:,.2f}")
        memory.add_row("all", f"{sum(self.memory.values()) / 2**20:,.2f}")
        traffic = Table("sent a device and step", "among", "times", "MiB")
        for collective in self.traffic:
            among, times = f"{collective.devices} devices", f"{collective.count:,}"
            traffic.add_row(
                f"{collective.kind} of {collective.size:,} B", among, times, f"{collective.sent / 2**20:,.3f}"
            )
        traffic.add_row("all", "", "", f"{sum(collective.sent for collective in self.traffic) / 2**20:,.3f}")
        reached = "lowers" if self.compiled_for == _SIMULATED else "compiles"
        lowered = [f"the step {reached} for {self.platform}"] if self.platform else []
        return Group(*lines, summary.parameter_table(self.trainable, self.frozen), memory, traffic, *lowered)


def predict(
    config: Mapping[str, Any], *, workdir: str | pathlib.Path | None = None, platform: str | None = None
) -> list[Prediction]:
    """What each stage of a run would need on the devices of this process, which `simulate_devices` can make up.

    Nothing is computed or written. The source is opened, and the tokenizer trained, since they shape the batch; texts
    count at their full length.

    FLOPs are those of the program. Memory and traffic are those of what a compiler makes of it, split over the mesh:
    that of the platform where it is installed (`parallel.absent_devices`: TPU v5e, H100), else that of the CPU. Of the
    memory everything but "temporary" is exact on any platform. The CPU fuses less, all-reduces gradients that fsdp
    splits where accelerators reduce-scatter, and computes and sends bfloat16 in float32: its temporary memory and
    traffic are upper estimates.

    Args:
      config: as for `train_and_evaluate`.
      workdir: of the run; one that holds it already gives its tokenizer.
      platform: one of "cpu", "cuda", "rocm", "tpu", for which the step is lowered, or compiled where `jax[tpu]` or
        `jax[cuda13]` is installed: no device is needed, and an operation that the platform lacks shows.

    Raises:
      ConfigError: a key or value is wrong, nothing reads it, or the step does not lower for the platform.
    """
    if platform is not None:
        check_choice("predict", "platform", platform, PLATFORMS)
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    with contextlib.ExitStack() as closing:
        folder = pathlib.Path(workdir or closing.enter_context(tempfile.TemporaryDirectory()))
        return [_predict(stage, name, folder / name, platform) for name, stage in split_stages(plain)]


def simulated_devices(config: Mapping[str, Any]) -> int:
    """The number of devices that `config.mesh` names; a size of -1 counts as one.

    >>> simulated_devices({"mesh": {"data": -1, "fsdp": 4, "tensor": 2}})
    8
    """
    return math.prod(max(1, size) for size in config.get("mesh", {}).values())


def _predict(plain: Mapping[str, Any], name: str, workdir: pathlib.Path, platform: str | None) -> Prediction:
    config = Section(plain, "config")
    inputs = build_inputs(config, workdir)
    absent = parallel.absent_devices(platform, jax.device_count()) if platform is not None else None
    if absent is None:
        mesh, options = call(parallel.make_mesh, config.get("mesh", {})), _COMPILER_OPTIONS
        compiled_for = _SIMULATED
    else:
        mesh = call(parallel.mesh_of, config.get("mesh", {}), absent)
        options, compiled_for = dict(parallel.COMPILER_OPTIONS[str(platform)]), absent[0].device_kind
    size = config.batch_size
    with training_batches(inputs, config.data, batch_size=size, seed=config.seed) as batches:
        batch = parallel.batch_shapes(batches.element_spec, mesh)
    total = total_steps(config, examples=len(inputs.source), batch_size=size)
    method = build_method(config)
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(method.init, key, batch)
    optimizer = call(build_optimizer, config.optimizer, shapes.params, total_steps=total, trains=method.partition)
    plan = call(parallel.plan_sharding, config.get("sharding", {}), shapes.params, mesh)
    decay = config.get("ema_decay")

    def initial_state(batch: Batch) -> TrainState:
        return create_state(method.init(key, batch), optimizer, key=key, ema=decay is not None)

    state = jax.eval_shape(initial_state, batch)
    shardings = plan.shardings(state)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    accumulate, exact = config.get("accumulate", 1), config.get("accumulate_exactly", True)
    update = make_train_step(method, optimizer, accumulate=accumulate, exact=exact, ema_decay=decay)
    for section in _READ_BY_THE_LOOP:
        found = config.get(section)
        if isinstance(found, Section):
            found.read_all()
    config.check_read()

    traced = CompiledStep(update, mesh, shardings).trace(state, batch)
    if platform is not None and absent is None:
        try:
            traced.lower(lowering_platforms=(platform,))
        except Exception as error:
            raise ConfigError(f"the step does not lower for {platform}: {error}") from error
    apply = jax.jit(optimizer.transformation.update).trace(state.trainable, state.opt_state, state.trainable)
    optimizer_flops = count_flops(apply.jaxpr)
    program = traced.lower().compile(compiler_options=options)
    analysis: Any = program.memory_analysis()
    temporary = analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return Prediction(
        stage=name,
        mesh=mesh,
        batch_size=size,
        trainable=state.trainable,
        frozen=state.frozen,
        flops_per_example=(count_flops(traced.jaxpr) - optimizer_flops) / size,
        optimizer_flops=optimizer_flops,
        memory={
            "parameters": _bytes((state.trainable, state.frozen)),
            "optimizer": _bytes(state.opt_state),
            "average of parameters": _bytes(state.ema),
            "other state": _bytes((state.step, state.stats, state.key, state.healthy)),
            "batch": _bytes(batch),
            "temporary": temporary,
        },
        traffic=parallel.collective_traffic(program.as_text() or ""),
        platform=platform,
        compiled_for=compiled_for,
    )


def _bytes(tree: Any) -> int:
    """Bytes on one device of shapes with their shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _short(count: float) -> str:
    """A number of operations with its prefix."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {prefix}FLOP"
    return f"{count:,.0f} FLOP"

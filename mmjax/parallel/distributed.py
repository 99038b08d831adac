"""Several processes as one program: starting them, and agreeing on what each sees for itself."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.config import ConfigError

T = TypeVar("T")


def start_distributed(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins this process to the others of the run; call it before anything asks jax for devices.

    Without arguments the cluster is found by `jax.distributed.initialize`: SLURM, GKE and Cloud TPU, Open MPI,
    Kubernetes. Outside of any, and for one process, nothing is done.

    Args:
      coordinator: `host:port` of process 0, which the others can reach.
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      ConfigError: some of the three are given and others are not, or they contradict one another.
    """
    if coordinator is None and num_processes is None and process_id is None:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            if "coordinator_address" not in str(error):  # it is missing where no cluster was found
                raise ConfigError(f"start_distributed: {error}; give coordinator, num_processes, process_id") from error
            return
        _leave_cached_cpu_programs()
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise ConfigError(
            f"start_distributed: coordinator is {coordinator}, num_processes {num_processes}, process_id {process_id}; "
            "give all three, or none of them where the cluster tells"
        )
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"start_distributed: process_id is {process_id}, expected 0 to {num_processes - 1} for "
            f"{num_processes} processes"
        )
    if ":" not in coordinator:
        raise ConfigError(f"start_distributed: coordinator is {coordinator!r}, expected host:port")
    if num_processes > 1:
        jax.distributed.initialize(coordinator, num_processes, process_id)
        _leave_cached_cpu_programs()


def _leave_cached_cpu_programs() -> None:
    """Programs for CPUs from the compilation cache (jax 0.10) let processes mix up each other's messages."""
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)


def is_first_process() -> bool:
    """Whether this is the process that writes and prints for all."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """What JSON holds, of every process, in their order; all must call it.

    >>> gather({"position": 3})
    [{'position': 3}]
    """
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray(text.size))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes.tolist(), strict=True)]


def together(function: Callable[[], T]) -> T:
    """Calls `function` on every process; what it raises on one stops all of them, instead of letting them wait.

    Returns:
      What it returns on this process.

    Raises:
      ConfigError: where it did not raise, but did on another process.

    >>> together(lambda: 3)
    3
    """
    try:
        result = function()
    except Exception as error:
        gather(f"{type(error).__name__}: {error}")
        raise
    for process, verdict in enumerate(gather(None)):
        if verdict is not None:
            raise ConfigError(f"process {process} stopped: {verdict}")
    return result


def on_first_process(function: Callable[[], Any]) -> None:
    """Calls `function` on the first process while the others wait; what it raises there stops all of them.

    >>> on_first_process(lambda: print("once"))
    once
    """
    together(function if is_first_process() else lambda: None)


class Agreement:
    """Flags that any process may raise, seen by all at the same call: a wish to stop, a save that is due.

    With one process a call returns its own flags. With several it returns what all of them said at the call BEFORE:
    that answer is there, so that no device waits for a host.

    Args:
      count: number of flags.

    >>> Agreement(2)(True, False)
    (True, False)
    """

    def __init__(self, count: int):
        self._alone = jax.process_count() == 1
        if self._alone:
            return
        mesh = Mesh(np.asarray(jax.devices()), ("device",))
        self._split = NamedSharding(mesh, PartitionSpec("device"))
        self._any = jax.jit(lambda flags: jnp.any(flags, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._before = self._dispatch([False] * count)

    def __call__(self, *flags: bool) -> tuple[bool, ...]:
        if self._alone:
            return flags
        answer, self._before = self._before, self._dispatch(flags)
        return tuple(np.asarray(answer).tolist())

    def _dispatch(self, flags: Sequence[bool]) -> jax.Array:
        rows = np.tile(np.asarray(flags, bool), (jax.local_device_count(), 1))
        return self._any(jax.make_array_from_process_local_data(self._split, rows))

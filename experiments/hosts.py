"""The flags of a binary that several hosts run together, and their start."""

from absl import flags

_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0; SLURM, GKE and TPU need no flag.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes that share the work, one a host.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def start() -> None:
    """Joins the other processes, if there are any; before the first use of a device."""
    from mmjax import parallel

    parallel.start_distributed(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)

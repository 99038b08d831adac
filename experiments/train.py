"""Trains what a config describes, and evaluates it.

    python -m experiments.train --config=configs/clip.py --workdir=runs/clip --config.optimizer.learning_rate=1e-3

A workdir that holds the same config is resumed; SIGTERM saves and leaves. What the run would need, on devices that
need not be here:

    python -m experiments.train --config=configs/clip.py --dry_run --dry_run_devices=64 --dry_run_platform=tpu
"""

from absl import flags
from ml_collections import config_flags

from experiments import command, hosts

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(variant), as path or path:variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print FLOPs, memory and traffic of a step, train and write nothing.")
_DEVICES = flags.DEFINE_integer("dry_run_devices", None, "Devices of the dry run; default: what config.mesh names.")
_PLATFORM = flags.DEFINE_string(
    "dry_run_platform", None, "Platform to lower, or compile, the step for: cuda, rocm, tpu."
)
flags.mark_flag_as_required("config")
flags.register_multi_flags_validator(
    ["workdir", "dry_run"], lambda v: v["workdir"] or v["dry_run"], "--workdir is needed, unless --dry_run."
)


def main() -> None:
    workdir = _WORKDIR.value
    if _DRY_RUN.value or workdir is None:
        predict()
        return
    from mmjax import parallel
    from mmjax.evaluate import results_table
    from mmjax.train import train_and_evaluate

    hosts.start()
    outcome = train_and_evaluate(_CONFIG.value, workdir)
    if not parallel.is_first_process():
        return
    if outcome.finished:
        print(results_table(outcome.results))
    else:
        print(f"stopped and saved; the same command goes on from there: {workdir}")


def predict() -> None:
    """Prints what every stage needs."""
    from rich.console import Console

    from mmjax import parallel
    from mmjax.train import predict, simulated_devices

    parallel.simulate_devices(_DEVICES.value or simulated_devices(_CONFIG.value))
    console = Console(highlight=False, soft_wrap=True)
    for prediction in predict(_CONFIG.value, workdir=_WORKDIR.value, platform=_PLATFORM.value):
        console.print(prediction)


if __name__ == "__main__":
    command.run(main)

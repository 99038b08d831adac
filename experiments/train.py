"""Trains what a config describes, and evaluates it.

    python -m experiments.train --config=configs/clip.py --workdir=runs/clip --config.optimizer.learning_rate=1e-3

A workdir that holds the same config is resumed; SIGTERM saves and leaves.
"""

from absl import flags
from ml_collections import config_flags

from experiments import command

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(variant), as path or path:variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there.", required=True)
flags.mark_flag_as_required("config")


def main() -> None:
    from mmjax.evaluate import results_table
    from mmjax.train import train_and_evaluate

    outcome = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    if outcome.finished:
        print(results_table(outcome.results))
    else:
        print(f"stopped and saved; the same command goes on from there: {_WORKDIR.value}")


if __name__ == "__main__":
    command.run(main)

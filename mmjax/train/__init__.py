"""The training loop, its state, checkpoints and logs."""

from mmjax.train.checkpoint import Checkpointer, CheckpointError, inspect, restore_params
from mmjax.train.fit import NonFiniteError
from mmjax.train.imported import write_imported
from mmjax.train.loop import Outcome, train_and_evaluate
from mmjax.train.predict import Prediction, predict, simulated_devices
from mmjax.train.state import TrainState, create_state
from mmjax.train.step import make_train_step
from mmjax.train.warm_start import WarmStart, warm_start
from mmjax.train.workdir import Run, encoders, load_run

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "NonFiniteError",
    "Outcome",
    "Prediction",
    "Run",
    "TrainState",
    "WarmStart",
    "create_state",
    "encoders",
    "inspect",
    "load_run",
    "make_train_step",
    "predict",
    "restore_params",
    "simulated_devices",
    "train_and_evaluate",
    "warm_start",
    "write_imported",
]

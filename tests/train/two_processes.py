"""Run by `test_two_processes.py`: one process of a run of several; the last one is told to stop at a step.

python -m tests.train.two_processes <coordinator> <processes> <process> <workdir> <step at which SIGTERM comes>
"""

import os
import signal
import sys

from mmjax import parallel
from mmjax.train import fit, train_and_evaluate
from tests.train.tiny import tiny_config

if __name__ == "__main__":
    coordinator, processes, process, workdir, stop_at = (
        sys.argv[1],
        *map(int, sys.argv[2:4]),
        sys.argv[4],
        int(sys.argv[5]),
    )
    parallel.start_distributed(coordinator, processes, process)
    step, made = fit.CompiledStep.__call__, []

    def step_then_signal(self, state, batch):
        made.append(1)
        if len(made) == stop_at and process == processes - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, state, batch)

    fit.CompiledStep.__call__ = step_then_signal
    outcome = train_and_evaluate(tiny_config(mesh={"fsdp": processes}, sharding={"min_size": 256}), workdir)
    print("finished" if outcome.finished else "stopped", len(made))

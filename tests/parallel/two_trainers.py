"""Run by `test_processes.py`: one of several processes that train on texts brought together by length.

python -m tests.parallel.two_trainers <coordinator> <processes> <process> <workdir>
"""

import sys

from mmjax import parallel
from mmjax.train import train_and_evaluate
from tests.train.tiny import tiny_config


def train(workdir):
    """Four steps of eight, some of texts of 20 tokens and some of 40."""
    config = tiny_config(steps=4, evals={})
    config["data"]["train"] |= {"num_records": 60, "kinds": {"single": 1.0, "pair": 1.0}, "paraphrase": True}
    config["data"] |= {"context_length": 40, "buckets": (20, 40), "group_by_length": True}
    train_and_evaluate(config, workdir)


if __name__ == "__main__":
    coordinator, processes, process, workdir = sys.argv[1:]
    parallel.start_distributed(coordinator, int(processes), int(process))
    train(workdir)

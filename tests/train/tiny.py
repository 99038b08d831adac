"""The smallest config that goes through the whole of a run."""

import copy

from configs import clip


def tiny_config(**changes):
    """`configs/clip.py:smoke` in six steps of eight; `changes` replace whole sections."""
    config = clip.get_config("smoke").to_dict()
    config |= {"steps": 6, "batch_size": 8, "checkpoint": {"every_steps": 2}, "log": {"every": 1, "tensorboard": False}}
    config["model"] = {
        "preset": "nano/8",
        "image": {"width": 16, "num_layers": 1, "output_dim": 16},
        "text": {"width": 16, "num_layers": 1, "output_dim": 16},
    }
    config["data"]["tokenizer"] = {"vocab_size": 300, "corpus_size": 64}
    config["optimizer"] |= {
        "name": "adamw",
        "learning_rate": 2e-3,
        "schedule": {"name": "warmup_cosine", "warmup_steps": 0},
    }
    config["evals"] = {"retrieval": {"every": 3, "data": {"name": "shapes", "split": "test", "num_records": 16}}}
    return copy.deepcopy(config | changes)

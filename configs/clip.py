"""CLIP and SigLIP on pictures and captions.

Train with `python -m experiments.train --config=configs/clip.py --workdir=runs/clip`, or another variant after a colon:

- `shapes` (default), `siglip`: the procedural pictures, two small towers; minutes on 2 cores.
- `emoji`, `stamps`: real pictures, after `python -m experiments.prepare_data emoji --source=... --out=data/emoji`.
- `files`: your own pairs, `--config.data.train.path=train.jsonl --config.evals.retrieval.data.path=test.jsonl`.
- `smoke`: everything in seconds, for a look and for CI.

Expected results are in BUILD_NOTES.md.
"""

import math

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant: str = "shapes") -> ConfigDict:
    """The config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/clip.py has no variant {variant!r}; there are {', '.join(VARIANTS)}")
    return ConfigDict(VARIANTS[variant](), convert_dict=True)


def shapes() -> dict:
    """Two small towers on the procedural source."""
    things = {"name": "shapes", "split": "test", "kinds": {"single": 1.0}, "unique": False, "num_records": 1000}
    return {
        "seed": 0,
        "batch_size": 256,
        "steps": 600,
        "accumulate": 1,
        "accumulate_exactly": True,
        "ema_decay": placeholder(float),
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
        "method": {"name": "clip", "loss": "softmax"},
        "model": {
            "preset": "tiny/8",
            "dtype": "float32",
            "remat": "none",
            "scan": False,
            "attention": "einsum",
            "image": {"width": 96, "num_layers": 3, "num_heads": 3, "output_dim": 96, "patch_dropout": 0.0},
            "text": {"width": 96, "num_layers": 2, "num_heads": 3, "output_dim": 96},
        },
        "data": {
            "train": {"name": "shapes", "split": "train"},
            "image": {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)},
            "tokenizer": {"vocab_size": 512, "corpus_size": 2048},
            "context_length": 18,
            "buckets": placeholder(tuple),
            "group_by_length": False,
            "num_workers": 0,
        },
        "optimizer": {
            "name": "muon",
            "learning_rate": 2e-2,
            "schedule": {"name": "warmup_cosine", "warmup_steps": 40},
            "weight_decay": 0.1,
            "grad_clip_norm": 1.0,
            "bounds": {"log_scale": (0.0, math.log(100.0))},
        },
        "checkpoint": {"every_steps": 200, "keep": 2},
        "log": {"every": 20, "tensorboard": True},
        "evals": {
            "retrieval": {"every": 100, "data": {"name": "shapes", "split": "test", "num_records": 1000}},
            "zero_shot": {"data": {**things, "label": "colour"}},
            "zero_shot_shape": {"kind": "zero_shot", "data": {**things, "label": "shape"}},
        },
    }


def siglip() -> dict:
    """The same with the sigmoid loss and its bias."""
    config = shapes()
    config["method"]["loss"] = "sigmoid"
    config["model"] |= {"use_bias": True, "init_scale": 10.0, "init_bias": -10.0}
    return config


def emoji() -> dict:
    """Emoji of three vendors; evaluated on a fourth vendor's style, and on concepts never seen."""
    config = _prepared("data/emoji")
    config["steps"] = 400
    config["evals"] = {
        split: {
            "kind": "retrieval",
            "group": "concept",
            "data": {"name": "arrayrecord", "path": "data/emoji", "split": split},
        }
        for split in ("new_style", "new_concept")
    }
    return config


def stamps() -> dict:
    """Captioned drawings and photographs."""
    config = _prepared("data/stamps")
    config["evals"] = {"retrieval": {"data": {"name": "arrayrecord", "path": "data/stamps", "split": "test"}}}
    return config


def files() -> dict:
    """Your own pairs in JSONL files; the paths are flags."""
    config = _prepared("")
    config["data"]["train"] = {"name": "jsonl", "path": "train.jsonl"}
    config["evals"] = {"retrieval": {"data": {"name": "jsonl", "path": "test.jsonl"}}}
    return config


def smoke() -> dict:
    """Every part of a run, as small as it gets."""
    config = shapes()
    config["steps"], config["batch_size"] = 20, 32
    config["optimizer"]["schedule"]["warmup_steps"] = 2
    config["checkpoint"]["every_steps"] = 10
    config["log"]["every"] = 5
    for protocol in config["evals"].values():
        protocol["data"]["num_records"] = 64
    return config


def _prepared(path: str) -> dict:
    """Towers and augmentation for a few thousand small pictures."""
    config = shapes()
    config["data"] |= {
        "train": {"name": "arrayrecord", "path": path, "split": "train"},
        "transforms": (("random_resized_crop", {"scale": (0.7, 1.0)}),),
        "tokenizer": {"vocab_size": 2048, "corpus_size": 100_000},
        "context_length": 24,
        "remainder": "keep",
    }
    return config


VARIANTS = {
    "shapes": shapes,
    "siglip": siglip,
    "emoji": emoji,
    "stamps": stamps,
    "files": files,
    "smoke": smoke,
}

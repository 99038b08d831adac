"""LiT: towers of trained or imported runs, locked; another tower, or heads on top, learn. Minutes on 2 cores.

    python -m experiments.train --config=configs/clip.py --workdir=runs/clip
    python -m experiments.train --config=configs/lit.py --workdir=runs/lit

`--config.init_from.image=runs/other` takes another tower; its settings and preprocessing come with it. Variants:

- `shapes` (default): the tower runs in every step.
- `bank`: it has run once, into a feature bank, and the steps are several times faster:

      python -m experiments.embed --checkpoint=runs/clip --data=shapes:split=train,num_records=20000 --out=banks/shapes
      python -m experiments.train --config=configs/lit.py:bank --workdir=runs/lit_bank

- `pretrained`: two towers that never met, a sentence encoder and a picture encoder, both locked; a head on each learns
  from emoji to bring them together. The towers have run once, into banks (`pretrained_live`: they run in every step):

      python -m experiments.prepare_weights minilm --out=downloads/minilm
      python -m experiments.prepare_weights dinov2_s --out=downloads/dinov2_s
      python -m experiments.import_checkpoint --source=downloads/minilm --out=weights/minilm --context_length=32
      python -m experiments.import_checkpoint --source=downloads/dinov2_s --out=weights/dinov2_s --image_size=112
      data=arrayrecord:path=data/emoji
      python -m experiments.embed --checkpoint=weights/dinov2_s --data=$data --out=banks/emoji_image
      python -m experiments.embed --checkpoint=weights/minilm --data=$data --modality=text --epochs=8 \\
          --out=banks/emoji_text
      python -m experiments.train --config=configs/lit.py:pretrained --workdir=runs/lit_emoji

  The random choice of captions in the text bank is that of one seed: another `--config.seed` needs a bank of its own,
  written with the same `--seed`.
- `pretrained_stamps`: the same on `data/stamps`, from `banks/stamps_image` and `banks/stamps_text`.
- `smoke`: a few steps of CLIP, then a few of LiT on its tower, in seconds.
"""

import math

from ml_collections import ConfigDict

from configs import clip


def get_config(variant: str = "shapes") -> ConfigDict:
    """The config of a variant."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/lit.py has no variant {variant!r}; there are {', '.join(VARIANTS)}")
    return ConfigDict(VARIANTS[variant](), convert_dict=True)


def shapes() -> dict:
    """The tower of `configs/clip.py`, live."""
    config = clip.shapes()
    del config["model"]["image"], config["data"]["image"]  # They come with the tower.
    config["method"] = {"name": "lit", "loss": "softmax"}
    config["init_from"] = {"image": "runs/clip"}
    config["data"]["train"]["num_records"] = 20_000
    return config


def bank() -> dict:
    """The same from a bank of the 20,000 pictures."""
    config = shapes()
    config["data"]["features"] = {"image": "banks/shapes"}
    return config


def pretrained() -> dict:
    """Heads on a sentence encoder and a picture encoder, from banks of the emoji."""
    return _heads("emoji", clip.emoji()["evals"])


def pretrained_live() -> dict:
    """The same, with towers that run in every step."""
    config = pretrained()
    del config["data"]["features"], config["data"]["view_epochs"]
    return config


def pretrained_stamps() -> dict:
    """The same heads from banks of the stamps."""
    return _heads("stamps", clip.stamps()["evals"])


def smoke() -> dict:
    """Both towers trained, then the text tower alone."""
    config = clip.smoke()
    config["steps"] = 10
    config["stages"] = ({"name": "clip"}, {"name": "lit", "method": {"name": "lit"}})
    return config


def _heads(name: str, evals: dict) -> dict:
    """Two heads of one width on locked towers; all that the towers need comes with them."""
    head = {"features": 256, "depth": 1}
    return {
        "seed": 0,
        "batch_size": 256,
        "steps": 1000,
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
        "init_from": {"image": "weights/dinov2_s", "text": "weights/minilm"},
        "method": {"name": "lit", "loss": "softmax", "locked": ("image", "text")},
        "model": {"image_head": dict(head), "text_head": dict(head)},
        "data": {
            "train": {"name": "arrayrecord", "path": f"data/{name}", "split": "train"},
            "features": {"image": f"banks/{name}_image", "text": f"banks/{name}_text"},
            "view_epochs": 8,
            "remainder": "keep",
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": 1e-3,
            "schedule": {"name": "warmup_cosine", "warmup_steps": 50},
            "weight_decay": 0.1,
            "bounds": {"log_scale": (0.0, math.log(100.0))},
        },
        "checkpoint": {"every_steps": 500, "keep": 2},
        "log": {"every": 50, "tensorboard": True},
        "evals": evals,
    }


VARIANTS = {
    "shapes": shapes,
    "bank": bank,
    "pretrained": pretrained,
    "pretrained_live": pretrained_live,
    "pretrained_stamps": pretrained_stamps,
    "smoke": smoke,
}

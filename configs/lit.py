"""LiT: the image tower of a trained run, locked; a new text tower learns to read it. Minutes on 2 cores.

    python -m experiments.train --config=configs/clip.py --workdir=runs/clip
    python -m experiments.train --config=configs/lit.py --workdir=runs/lit

`--config.init_from.image=runs/other` takes another tower, whose `model.image` has to be repeated here. Variants:

- `shapes` (default): the tower runs in every step.
- `bank`: it has run once, into a feature bank, and the steps are several times faster:

      python -m experiments.embed --checkpoint=runs/clip --data=shapes:split=train,num_records=20000 --out=banks/shapes
      python -m experiments.train --config=configs/lit.py:bank --workdir=runs/lit_bank

- `smoke`: a few steps of CLIP, then a few of LiT on its tower, in seconds.
"""

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
    config["method"] = {"name": "lit", "loss": "softmax"}
    config["init_from"] = {"image": "runs/clip"}
    config["data"]["train"]["num_records"] = 20_000
    return config


def bank() -> dict:
    """The same from a bank of the 20,000 pictures."""
    config = shapes()
    config["data"]["features"] = {"image": "banks/shapes"}
    return config


def smoke() -> dict:
    """Both towers trained, then the text tower alone."""
    config = clip.smoke()
    config["steps"] = 10
    config["stages"] = ({"name": "clip"}, {"name": "lit", "method": {"name": "lit"}})
    return config


VARIANTS = {"shapes": shapes, "bank": bank, "smoke": smoke}

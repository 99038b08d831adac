"""Run by `test_processes.py`: one of several processes that embed a source together, and refuse a bank together.

python -m tests.parallel.two_banks <coordinator> <processes> <process> <folder>
"""

import json
import pathlib
import shutil
import sys

import numpy as np

from mmjax import parallel
from mmjax.config import ConfigError, Section
from mmjax.data import ImageSpec, TooManyBadRecordsError, train_bpe
from mmjax.data.bank import StaleBankError, describe_source
from mmjax.data.sources import build_source
from mmjax.evaluate import make_encoders
from mmjax.evaluate.bank import describe_tower, embed_bank
from mmjax.method import Method
from mmjax.models import build_dual_encoder
from mmjax.train.features import check_towers, open_banks

SOURCE = {"name": "shapes", "num_records": 21, "image_size": 32}


def embed(folder, *, source=None, mesh=None, **settings):
    """A bank of two epochs of views, six batches; the tower is a product, which rounds as the batch's size has it."""
    kernel = np.random.default_rng(0).normal(size=(32 * 32 * 3, 24)).astype(np.float32)

    def encode(params, batch):
        return batch["image"].reshape(len(batch["image"]), -1) @ params["kernel"]

    encoders = make_encoders(
        Method(None, None, {"image": encode}, ()),
        tokenizer=train_bpe(["a"], vocab_size=300),
        image=ImageSpec(32),
        context_length=8,
        mesh=mesh or parallel.local_mesh(),
        batch_size=8,
    )
    return embed_bank(
        encoders,
        {"kernel": kernel},
        source or build_source(**SOURCE),
        folder,
        modality="image",
        description={"name": "shapes"},
        tower={"class": "Product"},
        origin={},
        epochs=2,
        transforms=(("random_resized_crop", {"scale": (0.5, 1.0)}),),
        **settings,
    )


def edited(bank, folder, **info):
    """A copy of a bank that says other things of itself."""
    shutil.copytree(bank, folder)
    described = json.loads((folder / "bank.json").read_text())
    (folder / "bank.json").write_text(json.dumps(described | info))
    return {"image": str(folder)}


def say(what, function, *args, **settings):
    """Prints what the function raises."""
    try:
        function(*args, **settings)
        print(f"{what}: nothing")
    except (ConfigError, StaleBankError, TooManyBadRecordsError, ValueError, OSError) as error:
        print(f"{what}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    coordinator, processes, process, folder = sys.argv[1], *map(int, sys.argv[2:4]), pathlib.Path(sys.argv[4])
    parallel.start_distributed(coordinator, processes, process)
    embed(folder / "bank")
    say("exists", embed, folder / "bank")
    say("mesh", embed, folder / "mesh", mesh=parallel.make_mesh())
    records = list(build_source(**SOURCE))
    records[20]["image"] = b"no picture"
    say("bad", embed, folder / "bad", source=records, max_bad_share=0.04)
    embed(folder / "missing", source=records, max_bad_share=0.05)

    # The last process has other files than the others: a bank of another source, of another tower.
    stale = process == processes - 1
    sources = [describe_source("shapes", seed=seed) for seed in (0, 1)]
    features = edited(folder / "bank", folder / f"source {process}", source=sources[stale])
    say("source", open_banks, features, {"name": "shapes"})
    params, model = {"image": {"kernel": np.ones(3)}}, {"preset": "nano/8"}
    own = {
        "tower": describe_tower(build_dual_encoder("nano/8").image),
        "params_hash": parallel.params_hash(params["image"]),
    }
    features = edited(folder / "bank", folder / f"tower {process}", **own | ({"params_hash": "0"} if stale else {}))
    say("tower", check_towers, Section({"data": {"features": features}, "model": model}), params)

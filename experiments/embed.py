"""Embeds a source by a trained run, once and for all: a feature bank, which training reads in place of the tower.

    python -m experiments.embed --checkpoint=runs/clip --out=banks/shapes                   # what the run trained on
    python -m experiments.embed --checkpoint=runs/clip --data=jsonl:path=train.jsonl --modality=text --out=banks/text
    python -m experiments.embed --checkpoint=runs/clip --out=banks/views --epochs=4 \\
        --transforms='[["random_resized_crop", {"scale": [0.7, 1]}], "flip"]'

`--config.data.features.image=banks/shapes` then makes configs/lit.py train from it. The same command on several hosts
shares the work. docs/bank.md tells more.
"""

import json

from absl import flags

from experiments import command, hosts

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or one checkpoint of it.", required=True)
_DATA = flags.DEFINE_string("data", None, "Source as name:setting=value,...; default: what the run trained on.")
_MODALITY = flags.DEFINE_enum("modality", "image", ["image", "text"], "What to embed.")
_OUT = flags.DEFINE_string("out", None, "Folder to make; it may not exist.", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Epochs of random views to store.", lower_bound=1)
_TRANSFORMS = flags.DEFINE_string("transforms", "[]", "Random transforms of the pictures, as JSON.")
_WEIGHTS = flags.DEFINE_list("caption_weights", None, "Of a record's first, second, ... caption; default: all alike.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the random views: that of the runs which will read the bank.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the stored numbers.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "Records a call of the tower.", lower_bound=1)
_MAX_BAD_SHARE = flags.DEFINE_float("max_bad_share", 0.01, "Share of unreadable records at which to stop.")
_NUM_WORKERS = flags.DEFINE_integer("num_workers", 0, "Processes that read.", lower_bound=0)
_EMA = flags.DEFINE_bool("ema", False, "Whether to embed by the moving average of the parameters.")


def main() -> None:
    from mmjax import parallel, train
    from mmjax.config import ConfigError, parse_call
    from mmjax.data.bank import describe_source
    from mmjax.data.sources import build_source
    from mmjax.evaluate.bank import describe_tower, embed_bank

    hosts.start()
    run = train.load_run(_CHECKPOINT.value, ema=_EMA.value)
    tower = getattr(run.model, _MODALITY.value)
    if tower is None:
        raise ConfigError(f"{_CHECKPOINT.value} has no {_MODALITY.value} tower; give another --modality")
    name, settings = parse_call(_DATA.value) if _DATA.value else _training_source(run.config)
    source = parallel.together(lambda: build_source(name, **settings))
    bank = embed_bank(
        train.encoders(run, parallel.local_mesh(), heads=False)._replace(batch_size=_BATCH_SIZE.value),
        run.params,
        source,
        _OUT.value,
        modality=_MODALITY.value,
        description=describe_source(name, **settings),
        tower=describe_tower(tower),
        origin={"checkpoint": _CHECKPOINT.value, "step": run.step, "ema": _EMA.value},
        epochs=_EPOCHS.value,
        transforms=json.loads(_TRANSFORMS.value),
        caption_weights=[float(weight) for weight in _WEIGHTS.value] if _WEIGHTS.value else None,
        seed=_SEED.value,
        dtype=_DTYPE.value,
        max_bad_share=_MAX_BAD_SHARE.value,
        num_workers=_NUM_WORKERS.value,
    )
    if not parallel.is_first_process():
        return
    info, missing = bank.info, int((~bank.valid).sum())
    print(f"{_OUT.value}: {info.epochs} x {info.records:,} embeddings of {info.dim} {info.dtype}, {missing} missing")


def _training_source(config: dict) -> tuple[str, dict]:
    from mmjax.config import ConfigError

    if "train" not in config["data"]:
        raise ConfigError(f"{_CHECKPOINT.value} was imported and trained on nothing here; say what to embed by --data")
    train = config["data"]["train"]
    return train["name"], {key: value for key, value in train.items() if key != "name"}


if __name__ == "__main__":
    command.run(main)

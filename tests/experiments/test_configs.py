"""A config is a test: every file and variant in `configs/` builds and takes a step."""

import importlib
import json
import pathlib

import ml_collections
import numpy as np
import PIL.Image
import pytest

import configs
from mmjax.data.bank import describe_source
from mmjax.data.sources import build_source
from mmjax.data.storage import DatasetInfo, write_dataset
from mmjax.evaluate.bank import describe_tower, embed_bank
from mmjax.parallel import make_mesh
from mmjax.train import encoders, load_run, train_and_evaluate, write_imported
from tests.train.test_imported import imported

SMALL = {
    "image": {"width": 16, "num_layers": 1, "output_dim": 16},
    "text": {"width": 16, "num_layers": 1, "output_dim": 16},
}


def variants():
    for path in sorted(pathlib.Path(configs.__file__).parent.glob("[!_]*.py")):
        yield from ((path.stem, name) for name in importlib.import_module(f"configs.{path.stem}").VARIANTS)


def records(count=12):
    colours = np.random.default_rng(0).integers(0, 255, (count, 3))
    for number, colour in enumerate(colours):
        image = np.broadcast_to(colour.astype(np.uint8), (34, 32, 3))
        yield {
            "id": str(number),
            "image": image,
            "captions": [f"colour {number}", f"the colour {number}"],
            "concept": str(number // 2),
        }


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """Data in the forms that the configs name: a prepared folder with every split, and JSONL files."""
    folder = tmp_path_factory.mktemp("data")
    splits = {split: list(records()) for split in ("train", "test", "new_style", "new_concept")}
    info = DatasetInfo("colours", licence="none", source="made here")
    write_dataset(folder / "prepared", splits, info=info, licence_files={"LICENSE": "none"})
    with (folder / "pairs.jsonl").open("w") as file:
        for record in records():
            PIL.Image.fromarray(record["image"]).save(folder / f"{record['id']}.png")
            file.write(json.dumps({"image": f"{record['id']}.png", "captions": record["captions"]}) + "\n")
    return folder


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory):
    """A run of the small towers to start from, and a bank of its image tower."""
    folder = tmp_path_factory.mktemp("runs")
    config = one_step(importlib.import_module("configs.clip").get_config("smoke"))
    train_and_evaluate(config | {"evals": {}}, folder / "clip")
    embed(folder / "clip", folder / "bank", "image", {"name": "shapes", "split": "train", "num_records": 32})
    return folder


@pytest.fixture(scope="module")
def pretrained(own_data, tmp_path_factory):
    """Two imported towers in the place of real ones, and banks of both."""
    folder = tmp_path_factory.mktemp("pretrained")
    for name, workdir in (("image", "dinov2_s"), ("text", "minilm")):
        write_imported(folder / workdir, imported(name))
        source = {"name": "arrayrecord", "path": str(own_data / "prepared"), "split": "train"}
        embed(folder / workdir, folder / f"emoji_{name}", name, source, epochs=8 if name == "text" else 1)
    return folder


def embed(workdir, out, modality, source, **settings):
    run = load_run(workdir)
    embed_bank(
        encoders(run, make_mesh())._replace(batch_size=16),
        run.params,
        build_source(**source),
        out,
        modality=modality,
        description=describe_source(**source),
        tower=describe_tower(getattr(run.model, modality)),
        origin={},
        **settings,
    )


def one_step(config):
    plain = config.to_dict() | {"steps": 1, "batch_size": 4}
    plain["optimizer"]["schedule"]["warmup_steps"] = 0
    plain["model"] |= {name: tower for name, tower in SMALL.items() if name not in plain.get("init_from", {})}
    plain["log"]["tensorboard"] = False
    return plain


def point_to(config, folder):
    sources = [config["data"]["train"], *(protocol["data"] for protocol in config["evals"].values())]
    for source in sources:
        if source["name"] == "arrayrecord":
            source["path"] = str(folder / "prepared")
        elif source["name"] == "jsonl":
            source["path"] = str(folder / "pairs.jsonl")
        else:
            source["num_records"] = 32


def start_from(config, *folders):
    """Names the folders of the fixtures by the last part of the paths in the config, whatever the data set is."""
    sections = [config.get("init_from", {}), config["data"].get("features", {})]
    for section in sections:
        for key, path in section.items():
            name = pathlib.Path(path).name.replace("stamps_", "emoji_").replace("shapes", "bank")
            (section[key],) = [str(folder / name) for folder in folders if (folder / name).exists()]


@pytest.mark.parametrize(("file", "variant"), list(variants()))
def test_variant_builds_and_takes_a_step(file, variant, own_data, clip_run, pretrained, tmp_path):
    config = importlib.import_module(f"configs.{file}").get_config(variant)
    assert isinstance(config, ml_collections.ConfigDict)
    plain = one_step(config)
    point_to(plain, own_data)
    start_from(plain, clip_run, pretrained)
    outcome = train_and_evaluate(plain, tmp_path)
    assert outcome.finished
    assert all(np.isfinite(value) for value in outcome.results.values())


def test_an_unknown_variant_lists_those_there_are():
    with pytest.raises(ValueError, match="no variant 'shape'; there are shapes"):
        importlib.import_module("configs.clip").get_config("shape")

"""LiT runs of the tower of a CLIP run, live and from a bank."""

import shutil

import jax
import numpy as np
import pytest

from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.data.bank import StaleBankError, describe_source
from mmjax.data.sources import build_source
from mmjax.evaluate.bank import describe_tower, embed_bank
from mmjax.evaluate.report.run_files import read_lines
from mmjax.train import CheckpointError, encoders, load_run, train_and_evaluate
from mmjax.train.init_from import init_from
from tests.train.tiny import tiny_config

SOURCE = {"name": "shapes", "split": "train", "num_records": 40}


def config(clip, *, bank=None, **changes):
    config = tiny_config(**changes)
    config["method"] = {"name": "lit"}
    config["init_from"] = {"image": str(clip)}
    config["data"]["train"] = dict(SOURCE)
    if bank:
        config["data"]["features"] = {"image": str(bank)}
    return config


def embed(clip, out, **settings):
    run = load_run(clip)
    return embed_bank(
        encoders(run, parallel.make_mesh()),
        run.params,
        build_source(**SOURCE),
        out,
        modality="image",
        description=describe_source(**SOURCE),
        tower=describe_tower(run.model.image),
        origin={"checkpoint": str(clip)},
        **settings,
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    train_and_evaluate(tiny_config(steps=2, evals={}), folder)
    return folder


@pytest.fixture(scope="module")
def bank(clip):
    return embed(clip, clip / "bank").folder


@pytest.fixture(scope="module")
def live(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    return folder, train_and_evaluate(config(clip), folder)


def losses(folder):
    return [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]


def test_a_run_starts_from_the_tower_and_leaves_it_alone(clip, live):
    started = load_run(clip).params["image"]
    jax.tree.map(np.testing.assert_array_equal, live[1].params["image"], started)
    jax.tree.map(np.testing.assert_array_equal, load_run(live[0]).params["image"], started)


def test_a_run_from_the_bank_is_that_of_the_live_tower(clip, bank, live, tmp_path):
    outcome = train_and_evaluate(config(clip, bank=bank), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(live[0]), rtol=1e-4)
    assert outcome.results == pytest.approx(live[1].results, rel=0.05)


@pytest.mark.slow
def test_a_run_from_a_bank_of_views_is_that_of_the_live_tower(clip, tmp_path):
    transforms = (("random_resized_crop", {"scale": (0.5, 1.0)}),)
    bank = embed(clip, tmp_path / "bank", epochs=2, transforms=transforms, seed=0)
    assert (bank.lookup(np.arange(40), np.zeros(40, int))[0] != bank.lookup(np.arange(40), np.ones(40, int))[0]).any()
    for name, settings in (("live", {}), ("banked", {"bank": bank.folder})):
        changed = config(clip, **settings, evals={})
        changed["data"] |= {"transforms": transforms, "view_epochs": 2}
        train_and_evaluate(changed, tmp_path / name)
    np.testing.assert_allclose(losses(tmp_path / "banked"), losses(tmp_path / "live"), rtol=1e-4)


def test_a_resumed_run_from_the_bank_equals_the_uninterrupted_one(clip, bank, tmp_path):
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    started_from = shutil.copytree(clip, tmp_path / "clip")
    settings = config(started_from, bank=bank, evals={})
    train_and_evaluate(settings, whole)
    shutil.copytree(whole, interrupted)
    shutil.rmtree(interrupted / "checkpoints" / "6")
    # The tower is in the checkpoint: the run that it is from may be gone.
    shutil.rmtree(started_from)
    assert load_run(interrupted).step == 4
    assert train_and_evaluate(settings, interrupted).finished
    assert losses(interrupted) == losses(whole)
    jax.tree.map(np.testing.assert_array_equal, load_run(interrupted).params, load_run(whole).params)


def test_a_bank_of_another_source_tower_or_parameters_is_refused_and_leaves_the_workdir_free(
    clip, bank, tmp_path_factory, tmp_path
):
    other = config(clip, bank=bank)
    other["data"]["train"]["seed"] = 1
    with pytest.raises(StaleBankError, match=r"source\.seed: 0 -> 1"):
        train_and_evaluate(other, tmp_path)
    coarser = config(clip, bank=bank)
    coarser["model"]["image"]["dtype"] = "bfloat16"
    with pytest.raises(StaleBankError, match=r"tower\.dtype: None -> bfloat16"):
        train_and_evaluate(coarser, tmp_path)
    trained_on = tmp_path_factory.mktemp("trained_on")
    train_and_evaluate(tiny_config(steps=1, evals={}), trained_on)
    with pytest.raises(StaleBankError, match=r"params_hash: [0-9a-f]{32} -> [0-9a-f]{32}"):
        train_and_evaluate(config(trained_on, bank=bank), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_init_from_names_what_is_wrong(clip, tmp_path):
    assert set(init_from({"image": str(clip)})) == {"image"}
    with pytest.raises(ConfigError, match=r"config\.init_from\.images: .* has no 'images'; did you mean 'image'"):
        init_from({"images": str(clip)})
    with pytest.raises(CheckpointError, match="is no workdir of a run"):
        init_from({"image": str(tmp_path)})

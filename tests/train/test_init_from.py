"""Runs that start from towers of others: their parameters, settings, preprocessing and tokenizer."""

import json
import shutil

import jax
import numpy as np
import pytest

from mmjax import parallel
from mmjax.config import ConfigError, Section
from mmjax.data.sources import build_source
from mmjax.evaluate.embed import embed_images
from mmjax.models import stack_layers
from mmjax.train import CheckpointError, encoders, load_run, predict, train_and_evaluate, write_imported
from mmjax.train.init_from import fill_settings
from tests.train.test_imported import IMAGE, TEXT, TOKENIZER, imported
from tests.train.tiny import tiny_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two towers that never met."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("image", "text"):
        write_imported(folder / name, imported(name))
    return folder


def heads(weights, **changes):
    """Both towers locked, a head on each."""
    config = tiny_config(steps=2)
    config["method"] = {"name": "lit", "locked": ("image", "text")}
    config["init_from"] = {name: str(weights / name) for name in ("image", "text")}
    config["model"] = {"image_head": {"features": 6, "depth": 1}, "text_head": {"features": 6}}
    config["data"] = {"train": {"name": "shapes", "split": "train", "num_records": 32}}
    return config | changes


@pytest.fixture(scope="module")
def trained(weights, tmp_path_factory):
    """A run from towers that are gone afterwards."""
    folder = tmp_path_factory.mktemp("trained")
    sources = shutil.copytree(weights, folder / "sources")
    config = heads(sources)
    outcome = train_and_evaluate(config, folder / "run")
    shutil.rmtree(sources)
    return folder / "run", config, outcome


def filled(config, folder):
    section = Section(config)
    fill_settings(section, folder)
    return section.plain()


def test_what_the_config_leaves_out_comes_with_the_towers(weights, tmp_path):
    config = filled(heads(weights), tmp_path)
    assert config["model"]["image"].items() >= IMAGE.items()
    assert config["model"]["text"].items() >= TEXT.items()
    assert config["data"]["image"]["resize"] == "bilinear"
    assert config["data"]["context_length"] == 10
    assert config["data"]["tokenizer"] == {"file": str(weights / "text" / "tokenizer.json")}
    # How a tower is computed is each run's own business.
    assert not {"scan", "remat", "dtype", "dropout_rate"} & config["model"]["text"].keys()


def test_what_the_config_says_stays(weights, tmp_path):
    config = heads(weights)
    config["data"] |= {"context_length": 6, "image": {"size": 8}}
    config["model"]["image"] = {"width": 16, "remat": "full"}
    found = filled(config, tmp_path)
    assert found["data"]["context_length"] == 6
    assert (found["data"]["image"]["size"], found["data"]["image"]["resize"]) == (8, "bilinear")
    assert (found["model"]["image"]["remat"], found["model"]["image"]["num_layers"]) == ("full", 2)


def test_only_heads_and_scale_move(weights, trained):
    _, _, outcome = trained
    for name in ("image", "text"):
        before = load_run(weights / name).params[name]
        jax.tree.map(np.testing.assert_array_equal, outcome.params[name], before)
    assert outcome.results["retrieval/image_to_text/queries"] == 16


def test_banks_hold_what_towers_give_before_the_heads(weights, trained):
    mesh, source = parallel.make_mesh(), build_source("shapes", num_records=4)
    run, tower = load_run(trained[0]), load_run(weights / "image")
    settings = {"batch_size": 4}
    bare = embed_images(encoders(run, mesh, heads=False)._replace(**settings), run.params, source)
    expected = embed_images(encoders(tower, mesh)._replace(**settings), tower.params, source)
    np.testing.assert_allclose(bare.embeds, expected.embeds, rtol=1e-5, atol=1e-6)
    assert embed_images(encoders(run, mesh)._replace(**settings), run.params, source).embeds.shape == (4, 6)


def test_a_dry_run_knows_the_towers_too(weights):
    (prediction,) = predict(heads(weights))
    assert set(prediction.trainable) == {"image_head", "text_head", "log_scale"}
    assert prediction.frozen["text"]["position_embedding"].shape == (12, 8)


def test_the_run_does_not_need_the_towers_it_came_from(trained, tmp_path):
    workdir, config, outcome = trained
    run = load_run(workdir)
    jax.tree.map(np.testing.assert_array_equal, run.params, outcome.params)
    assert (run.context_length, run.image.size, run.image.resize) == (10, 16, "bilinear")
    np.testing.assert_array_equal(*(t.encode(["red"], length=8)[0] for t in (run.tokenizer, TOKENIZER)))
    interrupted = shutil.copytree(workdir, tmp_path / "run")
    (interrupted / "result.json").unlink()
    again = train_and_evaluate(config, interrupted)
    assert again.results == outcome.results


def test_a_config_that_is_another_is_still_refused_and_what_was_taken_is_kept_apart(trained):
    workdir, config, _ = trained
    stored = json.loads((workdir / "config.json").read_text())
    assert set(stored["model"]) == {"image_head", "text_head"}
    assert set(json.loads((workdir / "init_from.json").read_text())["model"]) == {"image", "text"}
    with pytest.raises(ConfigError, match="batch_size: 8 -> 4"):
        train_and_evaluate(config | {"batch_size": 4}, workdir)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("model", "image", {"width": 24}, r"config\.model\.image is not the image of .*width: 16 -> 24; leave"),
        ("model", "text", {"pool": "first", "ln_eps": 1e-12}, r"\(run -> config\): pool: mean -> first; leave"),
        ("data", "tokenizer", {"vocab_size": 300}, r"config\.data\.tokenizer is set, but config\.init_from\.text"),
    ],
)
def test_a_contradiction_shows_both(weights, tmp_path, section, key, value, message):
    config = heads(weights)
    config[section][key] = value
    with pytest.raises(ConfigError, match=message):
        train_and_evaluate(config, tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_tower_that_is_not_there_is_named(weights, tmp_path):
    missing = {"image": str(weights / "text")}
    with pytest.raises(ConfigError, match=r"config\.init_from\.image: .*text has no 'image'; there are: text"):
        fill_settings(Section(heads(weights, init_from=missing)), tmp_path)
    with pytest.raises(CheckpointError, match="is no workdir of a run"):
        fill_settings(Section(heads(weights, init_from={"image": str(tmp_path)})), tmp_path)


def test_heads_can_be_taken_too(trained, tmp_path):
    workdir, _, outcome = trained
    config = tiny_config(steps=1, evals={})
    config["init_from"] = {"image": str(workdir), "image_head": str(workdir)}
    config["model"] = {"text": {**TEXT, "output_dim": 6}}
    config["data"] = {key: config["data"][key] for key in ("train", "tokenizer", "context_length")}
    config["model"]["text"] |= {"vocab_size": 300, "context_length": 18}
    config["method"] = {"name": "lit"}
    found = train_and_evaluate(config, tmp_path).params
    assert set(found) == {"image", "image_head", "text", "log_scale"}
    jax.tree.map(np.testing.assert_array_equal, found["image"], outcome.params["image"])
    assert found["image_head"]["dense_0"]["kernel"].shape == (16, 6)


@pytest.mark.parametrize("scanned", [False, True])
def test_scanned_layers_start_from_unrolled_ones_and_the_reverse(weights, scanned, tmp_path):
    bundle = imported("image")
    if not scanned:
        tower = bundle.model.image.clone(scan=True)
        bundle = bundle._replace(model=bundle.model.clone(image=tower), params=stack_layers(bundle.params))
    write_imported(tmp_path / "source", bundle)
    config = heads(weights, evals={}, steps=1)
    config["init_from"]["image"] = str(tmp_path / "source")
    config["model"]["scan"] = scanned
    found = train_and_evaluate(config, tmp_path / "run").params["image"]
    expected = imported("image").params["image"]
    jax.tree.map(np.testing.assert_array_equal, found, stack_layers(expected) if scanned else expected)

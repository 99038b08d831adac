import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mmjax.config import ConfigError
from mmjax.evaluate.report.run_files import read_lines
from mmjax.train import NonFiniteError, load_run, restore_params, train_and_evaluate
from mmjax.train import fit as fitting
from tests.train.tiny import tiny_config


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train_and_evaluate(tiny_config(), workdir)


def test_a_run_leaves_everything_that_reading_it_back_needs(uninterrupted):
    workdir, outcome = uninterrupted
    assert outcome.finished
    results = json.loads((workdir / "result.json").read_text())
    assert results["retrieval/text_to_image/R@1"] == outcome.results["retrieval/text_to_image/R@1"]
    assert results["trained_on_synthetic_data"] is True
    run = load_run(workdir)
    assert run.step == 6
    np.testing.assert_array_equal(run.params["log_scale"], outcome.params["log_scale"])
    assert load_run(workdir / "checkpoints" / "4").step == 4


def test_metrics_are_of_every_step_and_evaluations_on_their_schedule(uninterrupted):
    lines = read_lines(uninterrupted[0] / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "retrieval/text_to_image/R@1" in line] == [3, 6]
    assert all(line["scale"] == pytest.approx(np.exp(line["log_scale"]), rel=1e-5) for line in lines if "scale" in line)


def test_header_tells_config_data_parameters_rules_and_arithmetic(tmp_path, capsys):
    train_and_evaluate(tiny_config(steps=1, evals={}), tmp_path)
    printed = capsys.readouterr().out
    for part in (
        '"vocab_size"',
        "SYNTHETIC",
        "text_mask",
        "log_scale",
        "**",
        "1 steps x 8 = 8 samples",
        "memory a device",
    ):
        assert part in printed


def test_exact_micro_batches_train_as_the_whole_batch_and_the_header_says_so(uninterrupted, tmp_path, capsys):
    train_and_evaluate(tiny_config(steps=2, evals={}, accumulate=2), tmp_path)
    assert "2 micro-batches of 4 a step, contrasted over the whole batch" in capsys.readouterr().out
    found, expected = (
        [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
        for folder in (tmp_path, uninterrupted[0])
    )
    assert found == pytest.approx(expected[:2], rel=1e-5)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_sigterm_saves_and_the_resumed_run_equals_the_uninterrupted_one(uninterrupted, tmp_path, monkeypatch, stop_at):
    step = fitting.CompiledStep.__call__
    made = []

    def step_then_signal(self, state, batch):
        made.append(1)
        if len(made) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, state, batch)

    monkeypatch.setattr(fitting.CompiledStep, "__call__", step_then_signal)
    stopped = train_and_evaluate(tiny_config(), tmp_path)
    assert not stopped.finished
    assert not (tmp_path / "result.json").exists()
    assert restore_params(tmp_path / "checkpoints")[0] == stop_at
    resumed = train_and_evaluate(tiny_config(), tmp_path)
    workdir, whole = uninterrupted
    assert read_lines(tmp_path / "metrics.jsonl") == read_lines(workdir / "metrics.jsonl")
    assert resumed.results == whole.results
    np.testing.assert_array_equal(resumed.params["text"]["proj"]["kernel"], whole.params["text"]["proj"]["kernel"])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_metrics(uninterrupted, tmp_path):
    program = (
        "import sys; from tests.train.tiny import tiny_config; from mmjax.train import train_and_evaluate;"
        "train_and_evaluate(tiny_config(), sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.DEVNULL)
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 4):
        time.sleep(0.01)
    process.kill()
    process.wait()
    train_and_evaluate(tiny_config(), tmp_path)
    assert read_lines(metrics) == read_lines(uninterrupted[0] / "metrics.jsonl")


def test_a_finished_run_started_again_gives_its_results_and_trains_nothing(uninterrupted, monkeypatch):
    workdir, outcome = uninterrupted
    monkeypatch.setattr(fitting.CompiledStep, "__call__", lambda *_: pytest.fail("trained again"))
    again = train_and_evaluate(tiny_config(), workdir)
    assert again.results == outcome.results


def test_another_config_in_the_workdir_is_refused_with_the_difference(uninterrupted):
    config = tiny_config()
    config["optimizer"]["learning_rate"] = 0.5
    with pytest.raises(ConfigError, match=r"another config.*\n  optimizer\.learning_rate: 0\.002 -> 0\.5"):
        train_and_evaluate(config, uninterrupted[0])


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("optimizer", "lerning_rate", r"'lerning_rate'.*learning_rate"),
        ("model", "presett", r"'presett'; did you mean 'preset'"),
        ("method", "los", r"'los'; did you mean 'loss'"),
        ("data", "num_workrs", r"'num_workrs'; did you mean 'num_workers'"),
        ("log", "evry", r"config\.log\.evry \(did you mean every\?\)"),
    ],
)
def test_a_key_nobody_reads_is_an_error_with_near_misses(tmp_path, section, key, message):
    config = tiny_config()
    config[section][key] = 1
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(config, tmp_path)


def test_a_start_that_failed_leaves_the_workdir_free(tmp_path):
    broken = tiny_config(steps=1, evals={})
    broken["data"]["tokenizer"] = {"vocab_size": 400, "corpus_size": 64}
    with pytest.raises(ConfigError, match="stepz"):
        train_and_evaluate(broken | {"stepz": 1}, tmp_path)
    assert train_and_evaluate(tiny_config(steps=1, evals={}), tmp_path).finished
    assert load_run(tmp_path).tokenizer.vocab_size == 300


def test_an_unknown_key_at_the_top_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.stepz"):
        train_and_evaluate(tiny_config() | {"stepz": 1}, tmp_path)


@pytest.mark.parametrize("change", [{"epochs": 1}, {"steps": 0}])
def test_the_length_of_a_run_must_be_said_once_and_be_positive(tmp_path, change):
    with pytest.raises(ConfigError, match="steps"):
        train_and_evaluate(tiny_config() | change, tmp_path)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state_kept(tmp_path):
    config = tiny_config(evals={})
    config["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    with pytest.raises(NonFiniteError, match=r"not finite at step \d.*nonfinite"):
        train_and_evaluate(config, tmp_path)
    step, params = restore_params(tmp_path / "nonfinite")
    assert step >= 1
    assert np.isfinite(params["log_scale"])


def test_a_second_run_in_a_workdir_in_use_is_refused(tmp_path):
    from mmjax.train import workdir

    with workdir.lock(tmp_path), pytest.raises(ConfigError, match="in use by another run"):
        train_and_evaluate(tiny_config(), tmp_path)


def test_stages_start_from_the_parameters_before(tmp_path):
    frozen = {"rules": (("image/**", {"frozen": True}), ("**", {}))}
    stages = (
        {"name": "both", "steps": 1},
        {"name": "text", "steps": 2, "optimizer": {"name": "sgd", "learning_rate": 1e-3, **frozen}},
    )
    config = tiny_config(evals={}, stages=stages)
    config["optimizer"] = {"name": "sgd", "learning_rate": 0.1}
    outcome = train_and_evaluate(config, tmp_path)
    first = restore_params(tmp_path / "0_both" / "checkpoints")[1]
    np.testing.assert_array_equal(outcome.params["image"]["proj"]["kernel"], first["image"]["proj"]["kernel"])
    assert not np.array_equal(outcome.params["text"]["proj"]["kernel"], first["text"]["proj"]["kernel"])
    assert restore_params(tmp_path / "1_text" / "checkpoints")[0] == 2


def test_sigmoid_loss_trains_its_bias(tmp_path):
    config = tiny_config(steps=2, evals={}, method={"name": "clip", "loss": "sigmoid"})
    config["model"]["use_bias"] = True
    train_and_evaluate(config, tmp_path)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert lines[0]["bias"] != lines[1]["bias"]


def test_an_average_is_kept_and_evaluated(tmp_path):
    outcome = train_and_evaluate(tiny_config(steps=2, evals={}) | {"ema_decay": 0.5}, tmp_path)
    plain, average = load_run(tmp_path), load_run(tmp_path, ema=True)
    kernel = lambda params: np.asarray(params["text"]["proj"]["kernel"])  # noqa: E731
    np.testing.assert_array_equal(kernel(outcome.params), kernel(average.params))
    assert not np.array_equal(kernel(plain.params), kernel(average.params))

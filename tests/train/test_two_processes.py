"""A run of two processes on this machine, stopped and continued by one, equals a run of one; and the reverse."""

import json
import shutil

import pytest

from mmjax.evaluate.report.run_files import read_lines
from mmjax.train import restore_params, train_and_evaluate
from tests.processes import run as processes_run
from tests.train.tiny import tiny_config

pytestmark = pytest.mark.slow


def run(workdir, *, processes, stop_at=0):
    return processes_run("tests.train.two_processes", workdir, stop_at, processes=processes)


def assert_same_run(workdir, reference):
    found, expected = (read_lines(folder / "metrics.jsonl") for folder in (workdir, reference))
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for line, other in zip(found, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    train_and_evaluate(tiny_config(), workdir)
    return workdir


def test_two_processes_stop_together_and_one_goes_on(alone, tmp_path):
    first, second = run(tmp_path, processes=2, stop_at=3)
    assert first[-1] == second[-1] == "stopped 4"  # they agree a step after the signal
    assert len(second) == 1, "only the first process prints"
    assert restore_params(tmp_path / "checkpoints")[0] == 4
    outcome = train_and_evaluate(tiny_config(), tmp_path)
    assert outcome.finished
    assert_same_run(tmp_path, alone)


def test_two_processes_go_on_from_a_checkpoint_of_one(alone, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir)
    for later in ("checkpoints/4", "checkpoints/6"):
        shutil.rmtree(workdir / later)
    (workdir / "report.html").unlink()
    first, second = run(workdir, processes=2)
    assert first[-1] == second[-1] == "finished 4"
    assert_same_run(workdir, alone)
    results = [json.loads((folder / "result.json").read_text()) for folder in (workdir, alone)]
    assert results[0] == pytest.approx(results[1])
    assert (workdir / "report.html").stat().st_size > 1000

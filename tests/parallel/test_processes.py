"""Two processes on this machine do together what one does."""

import shutil

import numpy as np
import pytest

from mmjax.data.bank import FeatureBank
from mmjax.evaluate.report.run_files import read_lines
from tests import processes
from tests.parallel import two_banks, two_trainers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """The folder in which two processes have made banks, and what each said."""
    folder = tmp_path_factory.mktemp("banks")
    lines = processes.run("tests.parallel.two_banks", folder)
    return folder, [dict(line.split(": ", 1) for line in said) for said in lines]


def test_the_bank_of_two_processes_is_that_of_one_to_the_byte(banks, tmp_path):
    folder, _ = banks
    alone = two_banks.embed(tmp_path / "bank").folder
    files = sorted(path.name for path in alone.iterdir())
    assert sorted(path.name for path in (folder / "bank").iterdir()) == files
    assert [(folder / "bank" / name).read_bytes() == (alone / name).read_bytes() for name in files] == [True] * 5


def test_nothing_else_is_left(banks):
    folder, _ = banks
    names = {"bank", "missing", *(f"{what} {process}" for what in ("source", "tower") for process in (0, 1))}
    assert {path.name for path in folder.iterdir()} == names


def test_the_share_of_bad_records_is_that_of_all_processes(banks):
    folder, said = banks
    for lines in said:
        assert lines["bad"].startswith("TooManyBadRecordsError: 2 of 42 records cannot be read")
    np.testing.assert_array_equal(np.argwhere(~FeatureBank(folder / "missing").valid), [[0, 20], [1, 20]])


def test_what_stops_one_process_stops_all(banks):
    _, (first, second) = banks
    assert first["exists"].startswith("FileExistsError: ")
    assert second["exists"].startswith("ConfigError: process 0 stopped: FileExistsError: ")
    assert "make the encoders on parallel.local_mesh()" in first["mesh"]
    assert first["mesh"] == second["mesh"]


@pytest.mark.parametrize(("what", "why"), [("source", "source.seed: 1 -> 0"), ("tower", "params_hash: 0 -> ")])
def test_a_bank_that_is_stale_for_one_process_is_refused_by_all(banks, what, why):
    _, (first, second) = banks
    assert second[what].startswith("StaleBankError: ")
    assert why in second[what]
    assert first[what].startswith("ConfigError: process 1 stopped: StaleBankError: ")


def test_texts_of_like_length_train_two_processes_as_one(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    two_trainers.train(alone)
    processes.run("tests.parallel.two_trainers", together)
    assert_same_losses(together, alone)
    # The examples that wait for a batch are the same for any number of processes.
    shutil.rmtree(together / "checkpoints" / "4")
    two_trainers.train(together)
    assert_same_losses(together, alone)


def assert_same_losses(workdir, reference):
    found, expected = ([line["loss"] for line in read_lines(run / "metrics.jsonl")] for run in (workdir, reference))
    assert len(found) == 4
    assert found == pytest.approx(expected, rel=1e-3)

"""The binary `experiments.embed`, in a process of its own: flags are global."""

import subprocess
import sys

import numpy as np
import pytest

from mmjax import parallel
from mmjax.data.bank import FeatureBank
from mmjax.data.sources import build_source
from mmjax.evaluate.embed import embed_images
from mmjax.train import encoders, load_run, train_and_evaluate
from tests.train.tiny import tiny_config


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    train_and_evaluate(tiny_config(steps=1, evals={}), folder)
    return folder


def run(*flags):
    command = [sys.executable, "-m", "experiments.embed", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bank_is_written_and_described(clip, tmp_path):
    out = tmp_path / "banks" / "shapes"
    transforms = '--transforms=["flip"]'
    result = run(
        f"--checkpoint={clip}", "--data=shapes:num_records=10", f"--out={out}", "--epochs=2", "--seed=3", transforms
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}: 2 x 10 embeddings of 16 float32, 0 missing\n"
    bank = FeatureBank(out)
    assert bank.info.views == {"transforms": [["flip", {}]], "seed": 3}
    assert bank.info.origin == {"checkpoint": str(clip), "step": 1, "ema": False}
    trained = load_run(clip)
    expected = embed_images(
        encoders(trained, parallel.make_mesh()), trained.params, build_source("shapes", num_records=10)
    )
    plain = [np.isclose(bank.lookup(np.arange(10), np.full(10, e))[0], expected.embeds, atol=1e-5) for e in (0, 1)]
    unflipped = np.stack(plain).all(axis=-1)
    assert unflipped.any()
    assert not unflipped.all()


def test_errors_are_one_line_and_leave_nothing_behind(clip, tmp_path):
    result = run(f"--checkpoint={clip}", "--data=shapes:num_records=10", f"--out={tmp_path / 'bank'}", "--epochs=2")
    assert result.returncode == 1
    assert result.stderr.startswith("error: embed_bank: 2 epochs would be equal")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

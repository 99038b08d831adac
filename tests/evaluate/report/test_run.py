"""The report of a run that was really trained, by the command that users type."""

import subprocess
import sys

import pytest

from mmjax.train import train_and_evaluate
from tests.train.tiny import tiny_config


@pytest.mark.slow
def test_the_command_writes_the_report_of_a_run(tmp_path):
    train_and_evaluate(tiny_config(), tmp_path / "tiny")
    command = [sys.executable, "-m", "experiments.report", f"--checkpoint={tmp_path / 'tiny'}", "--date=1 May 2031"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path = tmp_path / "tiny" / "report.html"
    assert done.stdout.strip() == str(path)
    html = path.read_text(encoding="utf-8")
    for part in ("<h1>tiny</h1>", "Synthetic data.", "shapes (split test, num_records 16)", "1 May 2031", "among 16;"):
        assert part in " ".join(html.split())
    wrong = subprocess.run([*command, "--evaluation=retrieva"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1].endswith("did you mean 'retrieval'?")

import json

import numpy as np
import pytest

from mmjax.evaluate.report.run_files import read_lines
from mmjax.train.logging import MetricWriter, ProgressLine


def write(workdir, steps, **settings):
    writer = MetricWriter(workdir, tensorboard=False, **settings)
    for step in steps:
        writer.write(step, {"loss": np.float32(0.1) * step})
        writer.write_timing(step, {"samples_per_second": 1.0})
    writer.close()


def test_lines_are_json_with_the_step_first_and_exact_float32_values(tmp_path):
    write(tmp_path, [1, 2])
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [list(line) for line in lines] == [["step", "loss"]] * 2
    assert np.float32(lines[1]["loss"]) == np.float32(0.1) * 2


def test_resuming_takes_back_later_lines_and_a_torn_one(tmp_path):
    write(tmp_path, [1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    write(tmp_path, [3], resumed_step=2)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [json.loads(line)["step"] for line in (tmp_path / "timing.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_numbers_that_are_not_finite_stay_readable_json(tmp_path):
    writer = MetricWriter(tmp_path, tensorboard=False)
    writer.write(1, {"loss": float("nan"), "scale": float("inf")})
    writer.close()
    assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": "nan", "scale": "inf"}]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"retrieval/text_to_image/R@1": 0.5})
    writer.close()
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize("values", [{"loss": 1.25, "scale": 14.3}, {"loss": 1.25}])
def test_progress_is_plain_lines_where_there_is_no_terminal(capsys, values):
    line = ProgressLine(10)
    line.update(5, values, per_second=1234.5)
    line.close()
    printed = capsys.readouterr().out
    assert printed.startswith("step 5/10  loss 1.2500")
    assert "1,234 samples/s" in printed
    assert ("scale 14.30" in printed) == ("scale" in values)

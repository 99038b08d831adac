import subprocess
import sys

import pytest
from PIL import Image

from experiments import prepare_data


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "package" / "usr/share/tuxpaint/stamps"
    for name, text in {"animals/ram": "A ram.", "animals/crow": "A crow."}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.txt").write_text(text)
        Image.new("RGB", (2, 2)).save(root / f"{name}.png")
    doc = tmp_path / "package" / "usr/share/doc/tuxpaint-stamps-default"
    doc.mkdir(parents=True)
    (doc / "copyright").write_text("GPL-2")
    return tmp_path / "package"


def parse(*arguments):
    return vars(prepare_data.make_parser().parse_args(arguments))


def test_flags_are_the_arguments_of_the_function():
    assert parse("emoji", "--source=a.tgz", "--out=b") == {
        "dataset": "emoji",
        "source": "a.tgz",
        "out": "b",
        "keywords": None,
    }
    assert parse("stamps", "--source=a.deb", "--out=b", "--size=64")["size"] == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: dataset"),
        (["emojis", "--source=a", "--out=b"], "invalid choice: 'emojis'"),
        (["emoji", "--source=a"], "the following arguments are required: --out"),
        (["emoji", "--source=a", "--out=b", "--keyword=c"], "unrecognized arguments: --keyword=c"),
        (["stamps", "--source=a", "--out=b", "--size=big"], "argument --size: invalid int value: 'big'"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_what_was_written_is_told(package, tmp_path, capsys):
    prepare_data.main("stamps", source=str(package), out=str(tmp_path / "out"), size=8)
    told = capsys.readouterr().out
    assert "train               1 records" in told
    assert "test                1 records" in told
    assert "licence: GPL-2.0-or-later" in told
    assert f"build_source('arrayrecord', path='{tmp_path}/out', split='train')" in told


def test_the_command(package, tmp_path):
    command = [sys.executable, "-m", "experiments.prepare_data", "stamps"]
    done = subprocess.run([*command, f"--source={package}", f"--out={tmp_path}/out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "dataset.json").is_file()

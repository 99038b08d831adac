import subprocess
import sys

import pytest

from mmjax import registry
from mmjax.config import ConfigError
from mmjax.data.sources import build_source

FORMS = {"jsonl", "csv", "webdataset", "arrayrecord", "tfds"}


def test_the_folder_is_the_registry():
    names = set(registry.names("mmjax.data.sources"))
    assert names >= FORMS
    for name in names:
        assert callable(registry.find("mmjax.data.sources", name).build)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("jsnl", {}, "mmjax/data/sources has no 'jsnl'; did you mean 'jsonl'?"),
        ("qqqqqq", {}, "there are: arrayrecord, csv, "),
        ("jsonl", {"pth": "x"}, "source 'jsonl' has no setting 'pth'; did you mean 'path'?"),
        ("jsonl", {}, "source 'jsonl' lacks the setting 'path'"),
        ("_lines", {}, "has no '_lines'"),
    ],
)
def test_a_wrong_name_or_setting_is_named(name, settings, message):
    with pytest.raises(ConfigError) as caught:
        build_source(name, **settings)
    assert message in str(caught.value)


def test_a_section_of_a_config_is_the_call(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"caption": "x"}')
    section = {"name": "jsonl", "path": tmp_path / "x.jsonl"}
    assert build_source(**section)[0]["captions"] == ["x"]


def test_heavy_libraries_stay_out():
    modules = ", ".join(f"mmjax.data.sources.{name}" for name in sorted(FORMS))
    heavy = "{'tensorflow', 'torch', 'transformers', 'tensorflow_datasets', 'resvg_py'}"
    code = f"import sys, {modules}, mmjax.data.prepare.stamps; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

import pathlib
import re

import pytest

import mmjax.models
from mmjax.models import PRESETS

README = (pathlib.Path(mmjax.models.__file__).parent / "README.md").read_text()


def test_the_example_prints_what_it_says(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(example, {})
    said = re.findall(r"# (\([\d, ]+\)(?: \([\d, ]+\))?)", example)
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize("name", [*mmjax.models.__all__, *PRESETS])
def test_every_public_name_and_preset_is_listed(name):
    assert f"`{name}`" in README or name in ("DualEncoderOutput", "Preset")

"""The binary `experiments.import_checkpoint`, each call in a process of its own: flags are global."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mmjax import train
from mmjax.convert import Bundle, export_model
from mmjax.paths import flatten


def run(*flags):
    command = [sys.executable, "-m", "experiments.import_checkpoint", *flags]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )


@pytest.mark.slow
def test_a_folder_becomes_the_workdir_of_a_run(tiny, tmp_path):
    pytest.importorskip("transformers", reason="verification needs the extra 'torch'")
    bundle = tiny(num_layers=1)
    export_model(bundle, tmp_path / "folder", format="hf_clip")
    result = run(
        f"--source={tmp_path / 'folder'}",
        f"--out={tmp_path / 'run'}",
        "--verify",
        "--image_size=24",
        "--context_length=5",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"{tmp_path / 'folder'} (hf_clip) is imported to {tmp_path / 'run'}\n")
    assert json.loads((tmp_path / "run" / "parity.json").read_text())["agrees"]
    loaded = train.load_run(tmp_path / "run")
    assert (loaded.image.size, loaded.context_length) == (24, 5)
    found, wanted = flatten(loaded.params), flatten(bundle.params)
    assert found.pop("image/position_embedding").shape == (37, 16)
    del wanted["image/position_embedding"]
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    # What was imported can be exported.
    again = Bundle(loaded.model, loaded.params, loaded.tokenizer, loaded.image, loaded.context_length)
    export_model(again, tmp_path / "again", format="hf_clip")


def test_errors_are_one_message_and_leave_nothing_behind(tmp_path):
    result = run(f"--source={tmp_path / 'nowhere'}", f"--out={tmp_path / 'run'}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: cannot read {tmp_path / 'nowhere'}:\n  - no such file or folder")
    assert list(tmp_path.iterdir()) == []

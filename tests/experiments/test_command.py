"""The binaries as a user meets them: one line for what they can mend, on stderr, with exit code 1."""

import os
import re
import subprocess
import sys

import pytest

BAD = {
    "train": [
        (["--config=configs/clip.py", "--workdir={tmp}", "--config.model.preset=ViT-B/23"], "error: .*'ViT-B/32'"),
        (["--config=configs/clip.py:files", "--workdir={tmp}"], "error: .*train.jsonl"),
        (["--config=configs/clip.py", "--workdir={tmp}", "--config.method.name=clop"], "error: .*did you mean 'clip'"),
    ],
    "evaluate": [
        (["--checkpoint={tmp}/nothing"], "error: .*nothing is no workdir of a run"),
    ],
    "export": [
        (["--checkpoint={tmp}/nothing", "--format=hf_clip", "--out={tmp}/out"], "error: .*nothing is no workdir"),
    ],
}


@pytest.mark.parametrize(("binary", "arguments", "message"), [(b, *case) for b, cases in BAD.items() for case in cases])
def test_a_mistake_is_one_line(binary, arguments, message, tmp_path):
    command = [sys.executable, "-m", f"experiments.{binary}", *(a.replace("{tmp}", str(tmp_path)) for a in arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1, found.stderr
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    ("argument", "environment", "expected"),
    [
        ("None", {}, "{tmp}/mmjax/programs"),
        ("None", {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}, "elsewhere"),
        ("'here'", {"JAX_COMPILATION_CACHE_DIR": "elsewhere"}, "here"),
        ("''", {}, ""),
    ],
)
@pytest.mark.parametrize("jax_first", [False, True])
def test_the_compilation_cache_is_where_the_flag_says(argument, environment, expected, jax_first, tmp_path):
    lines = ["import jax", f"use_compilation_cache({argument})", "import jax"][not jax_first :]
    program = "; ".join(
        [
            "from experiments.command import use_compilation_cache",
            *lines,
            "print(jax.config.jax_compilation_cache_dir or '')",
        ]
    )
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, "XDG_CACHE_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == expected.replace("{tmp}", str(tmp_path))

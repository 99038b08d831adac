"""The binary `experiments.export`, each call in a process of its own: flags are global."""

import subprocess
import sys
import textwrap

import pytest

# A run without training: the binary takes nothing else of it than these fields.
PROGRAM = textwrap.dedent(
    """
    import sys
    from types import SimpleNamespace
    import jax, jax.numpy as jnp
    from mmjax import train
    from mmjax.data import ImageSpec, train_bpe
    from mmjax.models import build_dual_encoder

    def load_run(path, *, ema):
        tokenizer = train_bpe(["a cat"], vocab_size=260)
        size = {"width": 8, "num_layers": 1, "num_heads": 1, "output_dim": 4}
        text = size | {"vocab_size": tokenizer.vocab_size, "context_length": 6}
        model = build_dual_encoder("nano/8", image=size | {"image_size": 8}, text=text)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 6), int))
        params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes["params"])
        fields = {"tokenizer": tokenizer, "image": ImageSpec(8), "context_length": 6}
        return SimpleNamespace(step=7, model=model, params=params, **fields)

    train.load_run = load_run
    sys.modules["torch"] = None
    from experiments import command, export
    command.run(export.main)
    """
)


def run(*flags):
    command = [sys.executable, "-c", PROGRAM, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_export_without_torch(tmp_path):
    result = run("--checkpoint=runs/x", "--format=hf_clip", f"--out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"step 7 of runs/x is exported to {tmp_path / 'out'}\n"
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=onnxx"], "error: no format 'onnxx'; did you mean 'onnx'?\n"),
        (
            ["--format=hf_clip", "--verify"],
            "error: verification needs torch, which is not installed: pip install 'mmjax[torch]'\n",
        ),
    ],
    ids=["unknown format", "missing extra"],
)
def test_errors_are_one_line_and_leave_nothing_behind(tmp_path, flags, message):
    result = run("--checkpoint=runs/x", f"--out={tmp_path / 'out'}", *flags)
    assert result.returncode == 1
    assert result.stderr == message
    assert list(tmp_path.iterdir()) == []

"""Reading and writing of tensors, with and without PyTorch."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.convert import ConversionError, MissingExtraError
from mmjax.convert.tensor_files import read_tensors, write_tensors


def test_tensors_are_read_from_shards(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.asarray(jnp.full(3, 0.5, jnp.bfloat16))}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = read_tensors(tmp_path)
    assert tensors["a"].tolist() == [1, 1]
    assert tensors["b"].astype(np.float32).tolist() == [0.5, 0.5, 0.5]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ConversionError, match=r"no model-2.safetensors"):
        read_tensors(tmp_path)


def test_tensors_are_as_readable_as_other_files(tmp_path):
    write_tensors(tmp_path, {"a": np.ones(1, np.float32)})
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_usual_names_come_first_and_else_there_is_one_file(tmp_path):
    write_tensors(tmp_path, {"b": np.ones(1, np.float32)}, file="b.safetensors")
    assert list(read_tensors(tmp_path)) == ["b"]
    write_tensors(tmp_path, {"c": np.ones(1, np.float32)}, file="c.safetensors")
    with pytest.raises(ConversionError, match=r"several files of weights, name one of them: b.safetensors, c.safeten"):
        read_tensors(tmp_path)
    assert list(read_tensors(tmp_path / "c.safetensors")) == ["c"]
    write_tensors(tmp_path, {"open_clip": np.ones(1, np.float32)}, file="open_clip_model.safetensors")
    assert list(read_tensors(tmp_path)) == ["open_clip"]
    write_tensors(tmp_path, {"usual": np.ones(1, np.float32)})
    (tmp_path / "pytorch_model.bin").write_bytes(b"never looked at")
    assert list(read_tensors(tmp_path)) == ["usual"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "no such file or folder"),
        ("folder", None, "no file of weights"),
        ("model.safetensors", b"{", "no safetensors file"),
        ("weights.h5", b"", r"'.h5' is none of .safetensors, .bin"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        read_tensors(tmp_path / name)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="pickles are read by torch")


@pytest.mark.parametrize("nesting", [(), ("state_dict",), ("model",), ("model_state_dict",), ("model", "state_dict")])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_state_dicts_are_found_where_training_scripts_put_them(torch, tmp_path, nesting, prefix):
    content = {
        f"{prefix}a.weight": torch.arange(3, dtype=torch.bfloat16),
        f"{prefix}b": torch.nn.Parameter(torch.ones(2)),
    }
    for name in reversed(nesting):
        content = {"epoch": 3, name: content}
    torch.save(content, tmp_path / "x.pt")
    tensors = read_tensors(tmp_path)
    assert list(tensors) == ["a.weight", "b"]
    assert tensors["a.weight"].dtype == np.float32
    assert tensors["a.weight"].tolist() == [0, 1, 2]


def test_shards_of_pickles(torch, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"ids": torch.arange(2)}, tmp_path / "pytorch_model-2.bin")
    index = {"weight_map": {"a": "pytorch_model-1.bin", "ids": "pytorch_model-2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    tensors = read_tensors(tmp_path)
    assert tensors["a"].tolist() == [1, 1]
    assert tensors["ids"].dtype == np.int64


class _Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran its code')",)


def test_pickles_run_no_code(torch, tmp_path):
    torch.save({"a": torch.ones(2), "x": _Harmful()}, tmp_path / "x.pt")
    with pytest.raises(ConversionError, match="holds more than tensors, and nothing here runs its code"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "holds a list, expected a state dict"), ({}, "expected a state dict"), ({"lr": 0.1}, "'lr' is a float")],
)
def test_pickles_without_a_state_dict(torch, tmp_path, content, message):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(ConversionError, match=message):
        read_tensors(tmp_path)


def test_damaged_and_scripted_pickles(torch, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no pickle")
    with pytest.raises(ConversionError, match="holds more than tensors"):
        read_tensors(tmp_path)


def test_pickles_need_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"reading x.pt needs torch, .* pip install 'mmjax.torch.'"):
        read_tensors(tmp_path)

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import peft
from mmjax.convert import ConversionError
from mmjax.parallel import params_hash

PARAMS = {"image": {"kernel": np.ones((2, 3), np.float32)}, "log_scale": np.float32(2.0)}
TREE = {
    "image": {"fc1": {"a": np.arange(4, dtype=np.float32).reshape(2, 2), "half": jnp.array([1.5, -2.0], jnp.bfloat16)}},
    "empty": {"leaf": np.zeros((0, 3), np.float32)},
}


@pytest.fixture
def folder(tmp_path):
    peft.save_adapter(tmp_path / "out", TREE, {"params": PARAMS}, adapter={"name": "lora"}, origin="runs/clip, step 3")
    return tmp_path / "out"


def test_leaves_come_back_to_the_bit(folder):
    tree, manifest = peft.load_adapter(folder, PARAMS)
    np.testing.assert_array_equal(tree["image"]["fc1"]["a"], TREE["image"]["fc1"]["a"])
    assert tree["image"]["fc1"]["half"].dtype == jnp.bfloat16
    assert tree["image"]["fc1"]["half"].tolist() == [1.5, -2.0]
    assert tree["empty"]["leaf"].shape == (0, 3)
    assert manifest.adapter == {"name": "lora"}
    assert manifest.parameters == 6
    assert manifest == peft.load_adapter(folder, {"params": PARAMS})[1]


def test_the_files_say_what_they_are_and_hold_the_adapter_alone(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.json", "adapter.safetensors"]
    content = json.loads((folder / "adapter.json").read_text())
    assert content["base"] == params_hash(PARAMS)
    assert content["origin"] == "runs/clip, step 3"
    assert "mmjax.peft.load_adapter" in content["join"]
    assert content["leaves"]["image/fc1/a"] == [[2, 2], "float32"]


def test_another_base_is_refused_with_both_hashes(folder):
    other = {**PARAMS, "log_scale": np.float32(2.5)}
    with pytest.raises(peft.AdapterMismatchError) as error:
        peft.load_adapter(folder, other)
    for part in (params_hash(PARAMS), params_hash(other), "runs/clip, step 3"):
        assert part in str(error.value)


def test_what_takes_the_place_of_leaves_is_no_matter_of_the_base(tmp_path):
    """A run has trained `log_scale`: its adapter joins the parameters that the run started from."""
    trained = {"adapter": {"image": {"a": np.ones(2, np.float32)}}, "log_scale": np.float32(3.0)}
    peft.save_adapter(tmp_path / "out", trained, {**PARAMS, "log_scale": np.float32(3.0)})
    tree, _ = peft.load_adapter(tmp_path / "out", PARAMS)
    joined = peft.join_adapter(PARAMS, tree)
    assert sorted(joined) == ["adapter", "image", "log_scale"]
    assert joined["log_scale"] == 3.0
    with pytest.raises(peft.AdapterMismatchError):
        peft.load_adapter(tmp_path / "out", {**PARAMS, "image": {"kernel": np.zeros((2, 3), np.float32)}})


def test_nothing_is_written_over(folder):
    with pytest.raises(FileExistsError):
        peft.save_adapter(folder, TREE, PARAMS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter.json").unlink(), "no manifest of an adapter"),
        (lambda folder: (folder / "adapter.json").write_text("{}"), "no manifest of an adapter"),
        (lambda folder: (folder / "adapter.safetensors").unlink(), "no adapter.safetensors"),
        (lambda folder: (folder / "adapter.safetensors").write_bytes(b"x"), "no safetensors file"),
        (lambda folder: replace(folder, {"image": {"fc1": {"a": np.zeros(1, np.float32)}}}), "other leaves"),
    ],
    ids=["no manifest", "empty manifest", "no tensors", "damaged tensors", "other tensors"],
)
def test_missing_and_damaged_files_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(ConversionError, match=message):
        peft.load_adapter(folder, PARAMS)


def replace(folder, tree):
    other = folder.with_name("other")
    peft.save_adapter(other, tree, PARAMS)
    (other / "adapter.safetensors").replace(folder / "adapter.safetensors")

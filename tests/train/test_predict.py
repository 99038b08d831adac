import json
import subprocess
import sys

import jax
import pytest

from mmjax.config import ConfigError
from mmjax.train import predict, simulated_devices
from tests.train.tiny import tiny_config

WIDTH, BATCH, TEXT, VOCABULARY = 16, 8, 18, 300


@pytest.fixture(scope="module")
def prediction():
    (found,) = predict(tiny_config(mesh={"data": -1}), platform="tpu")
    return found


def layers(tokens):
    """FLOPs of a block's forward: four projections, two products of attention, an MLP of four times the width."""
    return 2 * tokens * (4 * WIDTH**2 + 2 * 4 * WIDTH**2) + 2 * 2 * tokens**2 * WIDTH


def test_parameters_and_flops_are_those_derived_by_hand(prediction):
    block = 12 * WIDTH**2 + 9 * WIDTH + 4 * WIDTH  # kernels, biases, two norms
    image = 8 * 8 * 3 * WIDTH + WIDTH + 17 * WIDTH + 2 * 2 * WIDTH + block + WIDTH**2
    text = VOCABULARY * WIDTH + TEXT * WIDTH + block + 2 * WIDTH + WIDTH**2
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert {name: count(tree) for name, tree in prediction.trainable.items()} == {
        "image": image,
        "text": text,
        "log_scale": 1,
    }
    # Backward costs twice the forward, but pixels have no gradient; the contrast is a product of all pairs.
    patches = 2 * 16 * (8 * 8 * 3) * WIDTH
    towers = 3 * (patches + layers(17) + layers(TEXT) + 2 * 2 * WIDTH**2) - patches
    contrast = 3 * 2 * BATCH * WIDTH
    assert prediction.flops_per_example == pytest.approx(towers + contrast, rel=0.01)
    assert prediction.optimizer_flops == 0


def test_memory_is_that_of_adamw_and_the_batch(prediction):
    parameters = sum(leaf.size for leaf in jax.tree.leaves(prediction.trainable))
    assert prediction.memory["parameters"] == 4 * parameters
    assert prediction.memory["optimizer"] == pytest.approx(8 * parameters, abs=64)
    assert prediction.memory["batch"] == BATCH * (32 * 32 * 3 * 4 + TEXT * 4 + TEXT + 4 + 4)  # mask, index, label
    assert prediction.memory["temporary"] > 0
    assert prediction.memory["average of parameters"] == 0


def test_remat_costs_flops_and_saves_memory():
    config = tiny_config(mesh={"data": -1})
    for tower in ("image", "text"):
        config["model"][tower]["num_layers"] = 3
    deep, remat = (predict(config | {"model": config["model"] | {"remat": name}})[0] for name in ("none", "full"))
    assert remat.flops_per_example > 1.2 * deep.flops_per_example
    assert remat.memory["temporary"] < 0.8 * deep.memory["temporary"]


def test_typos_are_errors_before_the_launch():
    with pytest.raises(ConfigError, match=r"config\.stepz"):
        predict(tiny_config() | {"stepz": 1})
    with pytest.raises(ValueError, match="platform is 'gpu', expected one of 'cpu', 'cuda'"):
        predict(tiny_config(), platform="gpu")


def test_a_mesh_names_its_devices():
    assert simulated_devices({"mesh": {"data": 2, "fsdp": 4, "tensor": -1}}) == 8
    assert simulated_devices({}) == 1


PROGRAM = """
import json, sys
from mmjax import parallel
from mmjax.train import predict
from tests.train.tiny import tiny_config
parallel.simulate_devices(4)
for batch_size in (64, 128):
    (found,) = predict(tiny_config(batch_size=batch_size, mesh={"data": 4}))
    print(json.dumps({"memory": found.memory, "traffic": [[*c, c.sent] for c in found.traffic]}))
(found,) = predict(tiny_config(batch_size=64, mesh={"data": 1, "fsdp": 4}, sharding={"min_size": 64}))
print(json.dumps({"memory": found.memory, "traffic": [[*c, c.sent] for c in found.traffic]}))
"""


@pytest.mark.slow
def test_traffic_of_the_contrast_grows_with_the_batch_and_fsdp_splits_the_state(prediction):
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    small, large, split = map(json.loads, found.stdout.splitlines())

    def passed(run):
        return sum(sent for kind, *_, sent in run["traffic"] if kind == "collective-permute")

    def reduced(run):
        return sum(sent for kind, _, size, *_, sent in run["traffic"] if kind == "all-reduce" and size > 4096)

    gradients = 2 * 3 / 4 * prediction.memory["parameters"]
    assert small["memory"]["parameters"] == prediction.memory["parameters"]
    assert passed(large) == pytest.approx(2 * passed(small), rel=0.1)
    assert 64 * WIDTH * 4 <= passed(small) < 20 * 64 * WIDTH * 4
    assert gradients * 0.95 < reduced(small) < gradients * 1.05 + 20 * 64 * WIDTH * 4
    assert split["memory"]["parameters"] < 0.4 * small["memory"]["parameters"]
    assert split["memory"]["optimizer"] < 0.4 * small["memory"]["optimizer"]


@pytest.mark.slow
def test_the_binary_prints_and_writes_nothing(tmp_path):
    arguments = ["--config=configs/clip.py:smoke", "--dry_run", "--dry_run_devices=2", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "experiments.train", *arguments, "--config.model.preset=nano/8"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for part in ("data 2, fsdp 1, tensor 1", "FLOP an example", "log_scale", "temporary", "all-reduce of"):
        assert part in found.stdout
    assert not (tmp_path / "run").exists()

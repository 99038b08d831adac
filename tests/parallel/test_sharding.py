import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.paths import NoMatchError


def mesh(data=1, fsdp=1, tensor=1):
    return AbstractMesh((data, fsdp, tensor), parallel.AXES)


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def block(width=16, hidden=64, *, layers=()):
    dense = lambda i, o: {"kernel": leaf(*layers, i, o), "bias": leaf(*layers, o)}  # noqa: E731
    return {
        "attn": {name: dense(width, width) for name in ("query", "key", "value", "out")},
        "mlp": {"fc1": dense(width, hidden), "fc2": dense(hidden, width)},
    }


def specs(params, mesh, **settings):
    return {placed.path: placed.spec for placed in parallel.plan_sharding(params, mesh, **settings).leaves}


def test_without_axes_to_split_over_everything_is_replicated():
    plan = parallel.plan_sharding({"block": block()}, mesh(data=8))
    assert {placed.spec for placed in plan.leaves} == {P(None, None), P(None)}


def test_tensor_splits_the_first_product_by_columns_and_the_second_by_rows():
    found = specs({"block_0": block()}, mesh(tensor=4))
    for name in ("attn/query", "attn/key", "attn/value", "mlp/fc1"):
        assert found[f"block_0/{name}/kernel"] == P(None, "tensor")
        assert found[f"block_0/{name}/bias"] == P("tensor")
    for name in ("attn/out", "mlp/fc2"):
        assert found[f"block_0/{name}/kernel"] == P("tensor", None)
        assert found[f"block_0/{name}/bias"] == P(None)


def test_a_gated_mlp_is_split_alike():
    gated = {"mlp": {"gate": {"kernel": leaf(4, 8)}, "up": {"kernel": leaf(4, 8)}, "down": {"kernel": leaf(8, 4)}}}
    found = specs(gated, mesh(tensor=2))
    assert found == {
        "mlp/gate/kernel": P(None, "tensor"),
        "mlp/up/kernel": P(None, "tensor"),
        "mlp/down/kernel": P("tensor", None),
    }


def test_fsdp_takes_the_largest_axis_that_is_free_and_divides():
    params = {"wide": leaf(8, 32), "odd": leaf(6, 33), "square": leaf(16, 16), "small": leaf(8, 8)}
    found = specs(params, mesh(fsdp=2), min_size=65)
    assert found == {"wide": P(None, "fsdp"), "odd": P("fsdp", None), "square": P("fsdp", None), "small": P(None, None)}


def test_both_split_a_kernel_along_different_axes():
    found = specs({"block_0": block()}, mesh(fsdp=2, tensor=2), min_size=1)
    assert found["block_0/attn/query/kernel"] == P("fsdp", "tensor")
    assert found["block_0/mlp/fc2/kernel"] == P("tensor", "fsdp")
    assert found["block_0/attn/query/bias"] == P("tensor")
    assert found["block_0/attn/out/bias"] == P("fsdp")


def test_layers_of_a_scanned_stack_are_never_split():
    found = specs({"blocks": block(layers=(128,))}, mesh(fsdp=2, tensor=2), min_size=1)
    assert found["blocks/attn/query/kernel"] == P(None, "fsdp", "tensor")
    assert found["blocks/mlp/fc1/bias"] == P(None, "tensor")
    assert found["blocks/mlp/fc2/bias"] == P(None, "fsdp")


def test_the_first_rule_of_the_user_decides_alone():
    rules = [("block_0/attn/query/kernel", ()), ("**/attn/*/kernel", (("fsdp", "tensor"), None))]
    found = specs({"block_0": block()}, mesh(fsdp=2, tensor=2), rules=rules, min_size=1)
    assert found["block_0/attn/query/kernel"] == P(None, None)
    assert found["block_0/attn/key/kernel"] == P(("fsdp", "tensor"), None)
    assert found["block_0/mlp/fc1/kernel"] == P("fsdp", "tensor")


@pytest.mark.parametrize(
    ("sizes", "settings", "message"),
    [
        (
            {"fsdp": 3},
            {"rules": [("**/fc1/kernel", ("fsdp", None))]},
            r"block_0/mlp/fc1/kernel \(16, 64\) has an axis of",
        ),
        (
            {"tensor": 3},
            {},
            r"an axis of 16, which does not divide over the 3 devices of tensor \(mesh: data 1, fsdp 1",
        ),
        ({"fsdp": 2}, {"rules": [("**/fc1/kernel", ("fsdb",))]}, "no axis 'fsdb'; did you mean 'fsdp'"),
        ({"fsdp": 2}, {"rules": [("**/fc1/bias", ("fsdp", None))]}, r"bias \(64,\) has 1 axes, the rule names 2"),
        ({"fsdp": 2}, {"rules": [("**/fc1/kernel", ("fsdp", "fsdp"))]}, "name each once"),
        ({"fsdp": 2}, {"rules": [("**", ()), ("**/bias", ())]}, r"\*\*/bias \(\) claims nothing"),
        ({"fsdp": 2}, {"min_size": 10**6}, r"mesh\.fsdp is 2, but none of 12 parameters .* lower sharding\.min_size"),
        ({"tensor": 2}, {"rules": [("**", ())]}, r"mesh\.tensor is 2, but none of 12 .* or set mesh\.tensor to 1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(sizes, settings, message):
    with pytest.raises(ConfigError, match=message):
        parallel.plan_sharding({"block_0": block()}, mesh(**sizes), **settings)


def test_a_rule_without_leaf_lists_near_misses():
    with pytest.raises(NoMatchError, match=r"atn.*did you mean.*attn"):
        parallel.plan_sharding({"block_0": block()}, mesh(fsdp=2), rules=[("block_0/atn/query/kernel", ())])


def test_moments_and_averages_follow_their_parameter_by_path_and_shape():
    params = {"image": {"proj": {"kernel": jnp.zeros((8, 4))}}, "proj": {"kernel": jnp.zeros((2, 8))}}
    plan = parallel.plan_sharding(params, mesh(fsdp=2), min_size=1)
    state = {"ema": params, "opt": optax.adam(0.1).init(params), "row": {"image": {"proj": {"kernel": jnp.zeros(8)}}}}
    found = jax.tree.map(lambda sharding: sharding.spec, plan.shardings(state))
    image, other = P("fsdp", None), P(None, "fsdp")
    assert found["ema"] == {"image": {"proj": {"kernel": image}}, "proj": {"kernel": other}}
    assert found["opt"][0].mu == found["opt"][0].nu == found["ema"]
    assert found["opt"][0].count == P()
    assert found["row"]["image"]["proj"]["kernel"] == P()


def test_the_report_counts_every_leaf_once():
    plan = parallel.plan_sharding(
        {"blocks": block(layers=(2,)), "log_scale": leaf()}, mesh(fsdp=2, tensor=2), min_size=1
    )
    *rows, total = [line.split() for line in str(plan).splitlines()[1:]]
    numbers = [[int(cell.replace(",", "")) for cell in row[:3]] for row in rows]
    assert [f"{sum(column):,}" for column in zip(*numbers, strict=True)] == total[:3]
    assert total[0] == "13"
    assert any("query,key,value}/kernel (whole, tensor) + fsdp" in line for line in str(plan).splitlines())


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    """Lines of `eight_devices.py`, which compares meshes of eight devices with one device."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "NPROC": "64",  # XLA's threads, as in tests/devices.py
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    root = pathlib.Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.parallel.eight_devices", str(tmp_path_factory.mktemp("run"))],
        capture_output=True,
        text=True,
        env=environment,
        cwd=root,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout.splitlines()


@pytest.mark.parametrize("name", ["data", "data_fsdp", "fsdp", "data_tensor", "all"])
def test_a_step_on_a_mesh_equals_the_step_on_one_device(on_eight_devices, name):
    assert f"{name}: equal" in on_eight_devices


def test_fsdp_splits_state_and_fetches_layers_where_they_are_used(on_eight_devices):
    assert "fsdp: an eighth of parameters, moments and average a device" in on_eight_devices
    assert "fsdp: gathers kernels, moves no activation" in on_eight_devices


def test_checkpoints_restore_on_other_meshes(on_eight_devices):
    pairs = [("fsdp", "one"), ("one", "fsdp"), ("fsdp", "data_tensor"), ("data_tensor", "all")]
    assert [f"{a} -> {b}: restored" in on_eight_devices for a, b in pairs] == [True] * len(pairs)


def test_encoders_on_meshes_give_the_embeddings_of_one_device(on_eight_devices):
    assert "encoders: equal" in on_eight_devices

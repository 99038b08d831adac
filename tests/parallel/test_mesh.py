import subprocess
import sys

import jax
import numpy as np
import pytest

from mmjax import parallel
from mmjax.config import ConfigError


def test_mesh_takes_all_devices_and_refuses_another_number():
    assert parallel.make_mesh().shape == {"data": len(jax.devices())}
    with pytest.raises(ConfigError, match=r"mesh\.data is 3, but there are 1 devices; set it to 1 or -1"):
        parallel.make_mesh(data=3)


def test_batch_keeps_its_values():
    batch = {"x": np.arange(6.0).reshape(3, 2)}
    put = parallel.put_batch(batch, parallel.make_mesh())
    np.testing.assert_array_equal(put["x"], batch["x"])


PROGRAM = """
import jax, numpy as np, optax, pytest
from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.train import create_state, make_train_step
from mmjax.methods.clip import clip
from mmjax.models import build_dual_encoder
from mmjax.optim import build_optimizer

mesh = parallel.make_mesh()
assert mesh.shape == {"data": 4}
with pytest.raises(ConfigError, match="batch of 6 does not divide over 4 devices; choose a multiple of 4"):
    parallel.put_batch({"x": np.ones(6)}, mesh)
tower = {"width": 16, "num_layers": 1, "output_dim": 16}
method = clip(build_dual_encoder("nano/8", image=tower, text=tower | {"vocab_size": 32, "context_length": 8}))
draw = np.random.default_rng(0)
batch = {
    "image": draw.normal(size=(8, 32, 32, 3)).astype(np.float32),
    "text": draw.integers(0, 32, (8, 8)).astype(np.int32),
    "text_mask": np.ones((8, 8), bool),
}
variables = method.init(jax.random.key(0), batch)
optimizer = build_optimizer(variables.params, name="sgd", learning_rate=0.1)
state = create_state(variables, optimizer, key=jax.random.key(1))
one, _ = jax.jit(make_train_step(method, optimizer))(state, batch)
everywhere = jax.device_put(state, parallel.replicated(mesh))
four, _ = jax.jit(make_train_step(method, optimizer))(everywhere, parallel.put_batch(batch, mesh))
for path, leaf in jax.tree_util.tree_leaves_with_path(one.trainable):
    other = four.trainable
    for key in path:
        other = other[key.key]
    np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-6, err_msg=str(path))
print("equal")
"""


def test_a_step_on_four_devices_equals_a_step_on_one():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False
    )
    assert found.stdout.strip() == "equal", found.stderr

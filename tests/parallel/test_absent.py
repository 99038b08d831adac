import jax
import jax.numpy as jnp
import pytest

from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.parallel import absent

COMPILERS = {"tpu": "libtpu", "cuda": "jax_plugins.xla_cuda13"}


def test_without_its_compiler_a_platform_has_no_absent_devices(monkeypatch):
    monkeypatch.setattr(absent.importlib.util, "find_spec", lambda module: None)
    assert [parallel.absent_devices(platform, 8) for platform in ("tpu", "cuda", "rocm")] == [None] * 3


@pytest.mark.parametrize(
    ("platform", "count", "message"),
    [
        ("tpu", 6, r"no TPU v5e slice has 6 devices; choose one of \[1, 4, 8,"),
        ("cuda", 12, "12 H100 are no hosts of 8"),
    ],
)
def test_numbers_of_devices_that_do_not_exist_are_refused(monkeypatch, platform, count, message):
    monkeypatch.setattr(absent, "_installed", lambda module: True)
    with pytest.raises(ConfigError, match=message):
        parallel.absent_devices(platform, count)


@pytest.mark.parametrize("platform", COMPILERS)
def test_accelerators_reduce_scatter_the_gradients_of_split_parameters(platform):
    pytest.importorskip(COMPILERS[platform])
    mesh = parallel.mesh_of(parallel.absent_devices(platform, 8), data=1, fsdp=-1)
    split = jax.NamedSharding(mesh, jax.P("fsdp"))
    kernel, x = (jax.ShapeDtypeStruct(shape, "float32", sharding=split) for shape in ((512, 512), (2048, 512)))
    gradient = jax.jit(jax.grad(lambda kernel, x: jnp.sum(jax.nn.relu(x @ kernel) ** 2)), out_shardings=split)
    program = gradient.lower(kernel, x).compile(compiler_options=dict(parallel.COMPILER_OPTIONS[platform]))
    kinds = {collective.kind for collective in parallel.collective_traffic(program.as_text())}
    assert kinds == {"all-gather", "reduce-scatter"}

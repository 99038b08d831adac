import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from mmjax.parallel import make_mesh
from mmjax.train.flops import count_flops

X = jax.ShapeDtypeStruct((4, 8), jnp.float32)
W = jax.ShapeDtypeStruct((8, 8), jnp.float32)
PRODUCT = 2 * 4 * 8 * 8


def scan(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0]


def split(x, w):
    mesh = make_mesh()
    specs = {"in_specs": (PartitionSpec(), PartitionSpec()), "out_specs": PartitionSpec()}
    return jax.shard_map(lambda x, w: x @ w, mesh=mesh, **specs)(x, w)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, w: x @ w, PRODUCT),
        (lambda x, w: jnp.tanh(x) + 1, 0),
        (lambda x, w: jnp.einsum("bi,ij->b", x, w @ w), 2 * 8**3 + 2 * 4 * 8),
        (scan, 5 * PRODUCT),
        (lambda x, w: jax.jit(lambda x: jax.jit(jnp.matmul)(x, w))(x), PRODUCT),
        (lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w), 2 * PRODUCT),
        (lambda x, w: jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w)))(w), 2 * PRODUCT),
        (
            lambda x, w: jax.grad(lambda w: jnp.sum(jax.checkpoint(lambda w: jnp.sin(jnp.tanh(x @ w)))(w)))(w),
            3 * PRODUCT,
        ),
        (split, len(jax.devices()) * PRODUCT),
    ],
)
def test_products_are_counted_as_often_as_they_run(function, expected):
    assert count_flops(jax.jit(function).trace(X, W).jaxpr) == expected


def test_a_convolution_counts_its_window():
    images, kernel = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((4, 4, 3, 5), jnp.float32)

    def convolve(images, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (4, 4), "VALID", dimension_numbers=layout)

    assert count_flops(jax.jit(convolve).trace(images, kernel).jaxpr) == 2 * (2 * 2 * 2 * 5) * (4 * 4 * 3)

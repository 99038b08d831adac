import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import Encoder, stack_layers, unstack_layers
from tests.models.random_params import random_params

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 3, 8))
MASK = jnp.tril(jnp.ones((3, 3), bool))
SETTINGS = {"num_layers": 2, "num_heads": 2, "layer_scale": 0.5}


def run(encoder):
    """`params -> (output, blocks), gradients`."""

    @jax.jit
    def both(params):
        def loss(params):
            output, blocks = encoder.apply({"params": params}, X, MASK)
            return jnp.sum(output**2), (output, blocks)

        gradients, outputs = jax.grad(loss, has_aux=True)(params)
        return outputs, gradients

    return both


@pytest.fixture(scope="module")
def unrolled():
    encoder = Encoder(**SETTINGS)
    params = random_params(encoder, X)
    return params, *run(encoder)(params)


@pytest.mark.parametrize(
    ("scan", "remat"), [(False, "full"), (False, "dots"), (True, "none"), (True, "full"), (True, "dots_no_batch")]
)
def test_variants_give_the_outputs_and_gradients_of_the_unrolled(unrolled, scan, remat):
    params, outputs, gradients = unrolled
    there, back = (stack_layers, unstack_layers) if scan else (dict, dict)
    got_outputs, got_gradients = run(Encoder(**SETTINGS, scan=scan, remat=remat))(there(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got_outputs, outputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), back(got_gradients), gradients)


def test_scanned_layers_start_different_from_each_other():
    params = jax.jit(Encoder(**SETTINGS, scan=True).init)(KEY, X)["params"]
    kernel = params["blocks"]["attn"]["query"]["kernel"]
    assert kernel.shape == (2, 8, 8)
    assert len(np.unique(kernel)) == kernel.size


def test_remat_recomputes_what_its_name_says():
    def flops(remat):
        encoder = Encoder(**SETTINGS, remat=remat)
        params = jax.eval_shape(encoder.init, KEY, X)["params"]
        gradient = jax.grad(lambda params: jnp.sum(encoder.apply({"params": params}, X)[0]))
        return jax.jit(gradient).lower(params).cost_analysis()["flops"]

    none, products, parameters, everything = map(flops, ("none", "dots", "dots_no_batch", "full"))
    assert none < products < parameters < everything


def test_blocks_end_in_the_output(unrolled):
    _, (output, blocks), _ = unrolled
    assert [block.shape for block in blocks] == [X.shape] * 2
    np.testing.assert_array_equal(blocks[-1], output)


def test_scanned_dropout_draws_anew_in_each_layer():
    encoder = Encoder(num_layers=2, num_heads=2, dropout_rate=0.5, scan=True, remat="full")
    shapes = jax.eval_shape(encoder.init, KEY, X)
    # Equal layers of zero kernels and unit biases: what a layer adds is its dropout masks.
    params = jax.tree.map_with_path(lambda path, x: jnp.full(x.shape, float("bias" in str(path[-1]))), shapes)
    apply = jax.jit(lambda rng: encoder.apply(params, 0 * X, deterministic=False, rngs={"dropout": rng})[1])
    first, second = apply(KEY)
    assert set(np.unique(first)) == {0.0, 2.0, 4.0}
    assert bool(jnp.any(second != 2 * first))
    np.testing.assert_array_equal(first, apply(KEY)[0])


def test_initial_spread_follows_the_text_rule_of_clip():
    width, depth = 64, 3
    encoder = Encoder(num_layers=depth, num_heads=2)
    block = jax.jit(lambda: encoder.init(KEY, jnp.ones((1, 2, width)))["params"]["block_1"])()
    residual = width**-0.5 * (2 * depth) ** -0.5
    expected = {"query": width**-0.5, "key": width**-0.5, "value": width**-0.5, "out": residual}
    expected |= {"fc1": (2 * width) ** -0.5, "fc2": residual}
    for name, spread in expected.items():
        kernel = (block["attn"] | block["mlp"])[name]["kernel"]
        np.testing.assert_allclose(kernel.std(), spread, rtol=0.05, err_msg=name)


def test_unknown_remat_lists_the_known():
    with pytest.raises(ValueError, match="remat is 'all', expected one of 'none', 'full', 'dots', 'dots_no_batch'"):
        Encoder(**SETTINGS, remat="all").init(KEY, X)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.optim import accumulate_gradients


def regression(params, batch, rng):
    error = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return jnp.mean(error**2), {"abs": jnp.mean(jnp.abs(error)), "calls": jnp.int32(7), "weight": 1.0}


GRADIENT = jax.value_and_grad(regression, has_aux=True)


def problem(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"w": jax.random.normal(keys[0], (3,), dtype), "b": jnp.zeros((), dtype)}
    batch = {"x": jax.random.normal(keys[1], (12, 3), dtype), "y": jax.random.normal(keys[2], (12,), dtype)}
    return params, batch


@pytest.mark.parametrize("micro_batches", [2, 3, 12])
def test_equals_the_full_batch_for_a_mean_loss(micro_batches):
    params, batch = problem()
    rng = jax.random.key(1)
    result = jax.jit(accumulate_gradients(GRADIENT, micro_batches))(params, batch, rng)
    expected = GRADIENT(params, batch, rng)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), result, expected)
    assert result[0][1]["calls"].dtype == jnp.int32


def test_one_micro_batch_is_the_function_itself():
    assert accumulate_gradients(GRADIENT, 1) is GRADIENT


def test_a_contrast_sees_its_micro_batch_alone():
    """The loss is over pairs of examples: a micro-batch has only those within it, here of equal parity."""

    def pairs(w, batch, rng):
        return jnp.mean(jnp.sum(w * batch[:, None] * batch[None, :], axis=1)), ()

    batch = jnp.arange(1.0, 5.0)
    _, grads = accumulate_gradients(jax.value_and_grad(pairs, has_aux=True), 2)(1.0, batch, jax.random.key(0))
    assert float(grads) == ((1 + 3) ** 2 / 2 + (2 + 4) ** 2 / 2) / 2


def test_micro_batches_draw_different_numbers():
    def noisy(w, batch, rng):
        noise = jax.random.normal(rng)
        return w * noise, noise

    rng = jax.random.key(3)
    (_, aux), grads = accumulate_gradients(jax.value_and_grad(noisy, has_aux=True), 2)(1.0, jnp.zeros(2), rng)
    draws = [jax.random.normal(jax.random.fold_in(rng, i)) for i in range(2)]
    assert draws[0] != draws[1]
    np.testing.assert_allclose(aux, sum(draws) / 2, rtol=1e-6)
    np.testing.assert_allclose(grads, sum(draws) / 2, rtol=1e-6)


def test_half_precision_gradients_are_summed_in_float32():
    """256 + 1 is 256 in bfloat16: a sum in bfloat16 would lose the 63 small terms."""

    def linear(w, batch, rng):
        return jnp.mean(w * batch), ()

    batch = jnp.ones(64, jnp.bfloat16).at[0].set(256.0)
    _, grads = accumulate_gradients(jax.value_and_grad(linear, has_aux=True), 64)(
        jnp.bfloat16(1.0), batch, jax.random.key(0)
    )
    assert grads.dtype == jnp.bfloat16
    assert float(grads) == float(jnp.bfloat16(319 / 64))


def test_errors():
    params, batch = problem()
    with pytest.raises(ValueError, match="micro_batches is 0, expected at least 1"):
        accumulate_gradients(GRADIENT, 0)
    with pytest.raises(ValueError, match=r"batch\['x'\] has shape \(12, 3\), not divisible into 5 .* multiple of 5"):
        accumulate_gradients(GRADIENT, 5)(params, batch, jax.random.key(0))
    with pytest.raises(ValueError, match=r"batch\['scalar'\] has shape \(\)"):
        accumulate_gradients(GRADIENT, 2)(params, batch | {"scalar": 1.0}, jax.random.key(0))

"""What holds for every loss of the room."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses

B = 4
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


# Arrays in the order of the signature, hyper-parameters, shape of the result.
EXAMPLES = {
    "clip_distillation_loss": (
        [draw(B, 3), draw(B, 3), draw(B, 5), draw(B, 5)],
        {"scale": 4.0, "teacher_scale": 9.0},
        (B,),
    ),
    "clip_loss": ([draw(B, 3), draw(B, 3)], {"scale": 5.0}, (B,)),
    "filip_loss": ([draw(B, 3, 5), draw(B, 2, 5)], {"scale": 5.0}, (B,)),
    "info_nce": ([draw(B, 3), draw(B, 3)], {"scale": 5.0}, (B,)),
    "masked_token_cross_entropy": ([draw(B, 2, 5), jnp.array([[1, 4], [-1, 0], [2, 2], [3, -1]])], {}, ()),
    "siglip_loss": ([draw(B, 3), draw(B, 3)], {"scale": 5.0, "bias": -2.0}, (B,)),
    "similarity_info_nce": ([draw(B, B)], {"scale": 5.0}, (B,)),
}
# Small programs that run once: most of their time would be LLVM's.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
IN_BLOCKS = [name for name in EXAMPLES if "block_size" in inspect.signature(getattr(losses, name)).parameters]
every_loss = pytest.mark.parametrize("name", [*EXAMPLES, *(f"{name} in blocks" for name in IN_BLOCKS)])


def example(name):
    name, _, in_blocks = name.partition(" ")
    arrays, settings, shape = EXAMPLES[name]
    settings = settings | {"block_size": 3} if in_blocks else settings
    return jit(functools.partial(getattr(losses, name), **settings)), arrays, shape


def cast(arrays, dtype):
    return [x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in arrays]


def test_every_loss_has_an_example():
    assert sorted(EXAMPLES) == sorted(losses.__all__)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_one_float32_value_an_example(name, dtype):
    loss, arrays, shape = example(name)
    value = jax.eval_shape(loss, *cast(arrays, dtype))
    assert (value.shape, value.dtype) == (shape, jnp.float32)


@every_loss
def test_half_precision_is_computed_in_float32(name):
    """The value is that of the rounded inputs in float32, to float32's own precision."""
    loss, arrays, _ = example(name)
    rounded = cast(arrays, jnp.bfloat16)
    np.testing.assert_allclose(loss(*rounded), loss(*cast(rounded, jnp.float32)), rtol=1e-6)


@every_loss
def test_order_of_the_batch_does_not_matter(name):
    loss, arrays, shape = example(name)
    order = np.array([2, 0, 3, 1])
    shuffled = [arrays[0][order][:, order]] if name == "similarity_info_nce" else [x[order] for x in arrays]
    value = loss(*arrays)
    np.testing.assert_allclose(loss(*shuffled), value[order] if shape else value, rtol=1e-5)


@every_loss
def test_gradients_are_finite_where_embeddings_are_zero_or_equal(name):
    loss, arrays, _ = example(name)
    floating = [i for i, x in enumerate(arrays) if jnp.issubdtype(x.dtype, jnp.floating)]
    gradient = jit(jax.grad(lambda *xs: jnp.sum(loss.__wrapped__(*xs)), argnums=floating))
    for start in (lambda x: x.at[0].set(0.0), jnp.zeros_like, jnp.ones_like):
        degenerate = [start(x) if i in floating else x for i, x in enumerate(arrays)]
        assert np.isfinite(loss(*degenerate)).all()
        assert all(np.isfinite(g).all() for g in gradient(*degenerate))


@every_loss
def test_nan_is_not_swallowed(name):
    loss, arrays, _ = example(name)
    assert np.isnan(loss(arrays[0].at[0].set(jnp.nan), *arrays[1:])).any()


@every_loss
def test_vmap_equals_a_loop(name):
    loss, arrays, _ = example(name)
    pairs = [jnp.stack([x, jnp.roll(x, 1, axis=0)]) for x in arrays]
    looped = jnp.stack([loss(*(x[i] for x in pairs)) for i in range(2)])
    np.testing.assert_allclose(jax.vmap(loss)(*pairs), looped, rtol=1e-5)

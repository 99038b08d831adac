"""Losses in blocks against their dense forms, on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses
from tests.losses.pair_examples import EXAMPLES, TEACHER, VARIABLES, B, largest_difference, value_and_gradients

# Small programs that run once: most of their time would be LLVM's.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
IMAGES, TEXTS = VARIABLES["images"], VARIABLES["texts"]
LARGE = 4096


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("clip", (1, 5, 8, 13, B, 50)), *((name, (5,)) for name in EXAMPLES if name != "clip")],
)
def test_blocks_of_any_size_equal_the_dense_form(name, sizes):
    """Values and gradients of embeddings, scale and bias: blocks of one, a prime, a divisor, more than there are."""
    every = jit(lambda: {size: value_and_gradients(name, block_size=size) for size in (0, *sizes)})()
    for size in sizes:
        assert largest_difference(every[size], every[0]) < 3e-6, size


def test_the_largest_difference_notices_one_number():
    changed = {"value": IMAGES.at[2, 1].add(1e-2)}
    assert largest_difference(changed, {"value": IMAGES}) > 1e-3


@pytest.mark.parametrize("name", ["clip", "info_nce", "siglip", "distillation", "filip"])
def test_automatic_is_dense_for_a_small_batch_and_blocks_for_a_large_one(name):
    """Read off the program: blocks are a loop."""
    loss, arrays, learned, others = EXAMPLES[name]

    def has_loop(batch):
        rows = [jax.ShapeDtypeStruct((batch, *VARIABLES[key].shape[1:]), jnp.float32) for key in arrays]
        teacher = rows if name == "distillation" else []
        settings = dict.fromkeys(learned, 1.0) | others
        return "scan[" in str(jax.make_jaxpr(functools.partial(loss, **settings))(*rows, *teacher))

    small = 512 if name == "filip" else 2048
    assert not has_loop(small)
    assert has_loop(4 * small)


def compiled(loss, batch, width=32, **settings):
    """The compiled gradient of a mean loss of paired embeddings, scale and bias."""
    bias = loss is losses.siglip_loss

    def total(images, texts, scale, bias_value):
        return jnp.mean(loss(images, texts, scale=scale, **({"bias": bias_value} if bias else {}), **settings))

    rows, number = jax.ShapeDtypeStruct((batch, width), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return jit(jax.grad(total, argnums=(0, 1, 2))).lower(rows, rows, number, number).compile()


def temporary(*args, **settings):
    return compiled(*args, **settings).memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("loss", [losses.clip_loss, losses.siglip_loss, losses.info_nce])
def test_memory_of_the_gradient_is_linear_in_the_batch(loss):
    """With the batch, each growth doubles; that of a quadratic program would be four times the last."""
    sizes = [temporary(loss, batch, block_size=128) for batch in (512, 1024, 2048, LARGE)]
    growth = np.diff(sizes)
    np.testing.assert_allclose(growth[1:] / growth[:-1], 2, atol=0.3)
    assert 25 * sizes[-1] < temporary(loss, LARGE, block_size=0)


@pytest.mark.parametrize("loss", [losses.clip_loss, losses.siglip_loss])
def test_no_array_of_all_pairs_exists(loss):
    shape = f"[{LARGE},{LARGE}]"
    assert shape in compiled(loss, LARGE, block_size=0).as_text()
    assert shape not in compiled(loss, LARGE, block_size=128).as_text()
    assert shape not in compiled(loss, LARGE).as_text()


def test_a_batch_of_16k_needs_a_25th_of_the_dense_memory_and_one_of_64k_less_than_a_gibibyte():
    assert 25 * temporary(losses.clip_loss, 2**14, 512) < temporary(losses.clip_loss, 2**14, 512, block_size=0)
    assert temporary(losses.clip_loss, 2**16, 512) < 2**30


def test_distillation_in_blocks_has_no_array_of_all_pairs():
    rows = jax.ShapeDtypeStruct((LARGE, 16), jnp.float32)

    def total(*embeds):
        return jnp.mean(losses.clip_distillation_loss(*embeds, scale=1.0, teacher_scale=1.0))

    text = jit(jax.grad(total, argnums=(0, 1))).lower(*[rows] * 4).compile().as_text()
    assert f"[{LARGE},{LARGE}]" not in text


def test_filip_in_blocks_never_holds_all_token_pairs():
    """[B, T, B, S] has 64 * 8 * 64 * 6 = 196,608 numbers, and 4 pairs of samples 768."""
    tokens = [jax.ShapeDtypeStruct((64, length, 5), jnp.float32) for length in (8, 6)]

    def gradient(block_size):
        total = lambda *tokens: jnp.mean(losses.filip_loss(*tokens, scale=1.0, block_size=block_size))  # noqa: E731
        program = jit(jax.grad(total, argnums=(0, 1))).lower(*tokens).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert gradient(0) > 4 * 196608
    assert gradient(2) < 4 * 196608 / 10


@pytest.mark.parametrize("block_size", [1, 3])
def test_one_pair_costs_nothing_and_has_no_gradient(block_size):
    def total(images, texts, scale):
        return losses.clip_loss(images, texts, scale=scale, block_size=block_size)[0]

    value, gradients = jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(IMAGES[:1], TEXTS[:1], 100.0)
    assert value == 0
    assert all(np.all(gradient == 0) for gradient in gradients)


def test_blocks_are_exact_at_a_scale_where_exponentials_overflow_and_underflow():
    """Logits reach from -1000 to 1000: a row's largest may come in any block."""
    found = jit(lambda: [losses.clip_loss(IMAGES, TEXTS, scale=1e3, block_size=size) for size in (0, 3)])()
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-3)
    assert np.max(found[0]) > 100


def test_the_teacher_gets_no_gradient_in_blocks():
    def total(teacher, teacher_scale):
        return losses.clip_distillation_loss(
            IMAGES, TEXTS, *teacher, scale=4.0, teacher_scale=teacher_scale, block_size=3
        ).sum()

    teacher, teacher_scale = jit(jax.grad(total, argnums=(0, 1)))(TEACHER, 9.0)
    assert all(np.all(gradient == 0) for gradient in teacher)
    assert teacher_scale == 0


@pytest.mark.parametrize(
    "loss",
    [
        functools.partial(losses.clip_loss, scale=3.0),
        functools.partial(losses.siglip_loss, scale=3.0, bias=-1.0),
        functools.partial(losses.clip_distillation_loss, scale=3.0, teacher_scale=2.0),
    ],
    ids=["clip", "siglip", "distillation"],
)
def test_the_gradient_in_blocks_can_be_differentiated(loss):
    """A penalty on the gradient: reverse over reverse."""
    teacher = TEACHER if loss.func is losses.clip_distillation_loss else ()

    def penalty(images, block_size):
        total = lambda images: jnp.sum(loss(images, TEXTS, *teacher, block_size=block_size) ** 2)  # noqa: E731
        return jnp.sum(jax.grad(total)(images) ** 2)

    dense, blocks = (jit(jax.grad(functools.partial(penalty, block_size=size)))(IMAGES) for size in (0, 8))
    assert np.max(np.abs(dense)) > 0.1
    np.testing.assert_allclose(blocks, dense, rtol=1e-3, atol=1e-4)


def test_a_second_call_does_not_trace_again():
    traces = []

    @jax.jit
    def gradient(images):
        traces.append(None)
        return jax.grad(lambda x: losses.clip_loss(x, TEXTS, scale=5.0, block_size=3).sum())(images)

    gradient(IMAGES)
    gradient(IMAGES + 1)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (functools.partial(losses.clip_loss, block_size=-1), r"clip_loss: block_size is -1, expected rows, 0"),
        (functools.partial(losses.info_nce, block_size=-4), r"info_nce: block_size is -4"),
        (functools.partial(losses.siglip_loss, bias=0.0, block_size=-1), r"siglip_loss: block_size is -1"),
        (
            functools.partial(losses.clip_loss, exchange="rings"),
            r"clip_loss: exchange is 'rings', .*'ring', 'all_gather'",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(IMAGES, TEXTS, scale=1.0)

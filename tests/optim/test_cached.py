import doctest
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmjax.optim
from mmjax import losses
from mmjax.optim import cached_value_and_grad

PAGE = pathlib.Path(mmjax.optim.__file__).parents[2] / "docs" / "large_batches.md"
SIZE, TOKENS, VOCABULARY = 12, 5, 7


def problem():
    """Two towers, two frozen teachers, and a decoder that only the loss uses."""
    draw = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)  # noqa: E731
    params = {
        "image": normal(6, 4),
        "text": normal(VOCABULARY, 4),
        "decoder": normal(4, VOCABULARY),
        "log_scale": jnp.float32(1.0),
        "bias": jnp.float32(-2.0),
        "teacher": normal(6, 3),
    }
    lengths = draw.integers(1, TOKENS + 1, SIZE)
    batch = {
        "image": normal(SIZE, 6),
        "text": jnp.asarray(draw.integers(0, VOCABULARY, (SIZE, TOKENS))),
        "text_mask": jnp.arange(TOKENS) < lengths[:, None],
    }
    return params, batch


def embed(params, batch, rng):
    weights = batch["text_mask"] / jnp.sum(batch["text_mask"], axis=1, keepdims=True)
    tokens = jnp.tanh(params["text"][batch["text"]])
    return {
        "image": jnp.tanh(batch["image"] @ params["image"]),
        "text": jnp.einsum("bt,btd->bd", weights, tokens),
        "tokens": tokens,
        "teacher": jax.lax.stop_gradient(jnp.tanh(batch["image"] @ params["teacher"])),
        "ids": batch["text"],
        "mask": batch["text_mask"],
    }


def clip(params, embeds, batch, rng):
    return jnp.mean(losses.clip_loss(embeds["image"], embeds["text"], scale=jnp.exp(params["log_scale"])))


def clip_in_blocks(params, embeds, batch, rng):
    scale = jnp.exp(params["log_scale"])
    return jnp.mean(losses.clip_loss(embeds["image"], embeds["text"], scale=scale, block_size=5))


def siglip(params, embeds, batch, rng):
    scale = jnp.exp(params["log_scale"])
    return jnp.mean(losses.siglip_loss(embeds["image"], embeds["text"], scale=scale, bias=params["bias"]))


def distillation(params, embeds, batch, rng):
    teacher = embeds["teacher"]
    scales = {"scale": jnp.exp(params["log_scale"]), "teacher_scale": 10.0}
    return jnp.mean(losses.clip_distillation_loss(embeds["image"], embeds["text"], teacher, teacher + 1.0, **scales))


def captioning(params, embeds, batch, rng):
    """Each token from the picture and the token before, by a decoder that belongs to the loss; padding is ignored."""
    logits = (embeds["image"][:, None] + embeds["tokens"][:, :-1]) @ params["decoder"]
    labels = jnp.where(embeds["mask"], embeds["ids"], -1)[:, 1:]
    return jnp.mean(losses.masked_token_cross_entropy(logits, labels))


def late_interaction(params, embeds, batch, rng):
    """A picture's best valid word, among all captions of the batch."""
    scores = jnp.einsum("ad,btd->abt", embeds["image"], embeds["tokens"])
    scores = jnp.max(jnp.where(batch["text_mask"], scores, -jnp.inf), axis=-1)
    return jnp.mean(losses.similarity_info_nce(scores, scale=jnp.exp(params["log_scale"])))


def together(params, embeds, batch, rng):
    args = (params, embeds, batch, rng)
    return clip(*args) + 0.5 * distillation(*args) + 2.0 * captioning(*args) + 1e-2 * jnp.sum(params["image"] ** 2)


def plain(embed, loss):
    def fn(params, batch, rng):
        whole = lambda params: loss(params, embed(params, batch, rng), batch, rng)  # noqa: E731
        return jax.value_and_grad(whole)(params)

    return jax.jit(fn)


def cached(embed, loss, chunk):
    return jax.jit(cached_value_and_grad(embed, loss, chunk=chunk))


def assert_close(found, expected):
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("loss", [clip, clip_in_blocks, siglip, distillation, captioning, late_interaction, together])
def test_equals_the_whole_batch_for_every_loss(loss):
    params, batch = problem()
    key = jax.random.key(0)
    expected = plain(embed, loss)(params, batch, key)
    assert_close(cached(embed, loss, 4)(params, batch, key), expected)


@pytest.mark.parametrize("chunk", [1, 5, 6, 7, 12, 100])
def test_equals_the_whole_batch_for_every_chunk_with_or_without_a_remainder(chunk):
    params, batch = problem()
    key = jax.random.key(0)
    expected = plain(embed, together)(params, batch, key)
    assert_close(cached(embed, together, chunk)(params, batch, key), expected)


def test_is_not_the_mean_over_micro_batches():
    params, batch = problem()
    parts = [plain(embed, clip)(params, jax.tree.map(lambda x, i=i: x[i::3], batch), None)[0] for i in range(3)]
    value, _ = cached(embed, clip, 4)(params, batch, jax.random.key(0))
    assert abs(float(value) - float(np.mean(parts))) > 0.1


def dropped(params, batch, rng):
    keep = jax.random.bernoulli(rng, 0.5, batch["image"].shape)
    return embed(params, batch | {"image": jnp.where(keep, batch["image"], 0.0)}, rng)


@pytest.mark.parametrize(
    ("chunk", "chunks"),
    [
        (4, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]),
        (5, [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9], [10, 11]]),
        (12, [list(range(12))]),
    ],
)
def test_dropout_equals_the_whole_batch_with_the_key_of_each_chunk(chunk, chunks):
    params, batch = problem()
    rng = jax.random.key(3)

    def embed_with_keys(params, batch, rng):
        back = np.argsort(np.concatenate(chunks))
        parts = [
            dropped(params, jax.tree.map(lambda x, rows=rows: x[np.array(rows)], batch), jax.random.fold_in(rng, i))
            for i, rows in enumerate(chunks)
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *parts)

    fn = cached(dropped, clip, chunk)
    found = fn(params, batch, rng)
    assert_close(found, plain(embed_with_keys, clip)(params, batch, rng))
    assert float(found[0]) != float(fn(params, batch, jax.random.key(4))[0])


@pytest.mark.parametrize("chunk", [2, 3, 5, 8])
def test_the_loss_gets_embeddings_in_the_order_of_the_batch_its_batch_and_its_key(chunk):
    def loss(w, embeds, batch, rng):
        return w, {"embeds": embeds, "batch": batch, "draw": jax.random.uniform(rng)}

    x, rng = jnp.arange(16.0).reshape(8, 2), jax.random.key(1)
    (value, aux), grads = cached_value_and_grad(lambda w, x, rng: w * x, loss, chunk=chunk, has_aux=True)(3.0, x, rng)
    np.testing.assert_array_equal(aux["embeds"], 3.0 * x)
    np.testing.assert_array_equal(aux["batch"], x)
    assert (float(value), float(grads), aux["draw"]) == (3.0, 1.0, jax.random.uniform(rng))


def test_a_teacher_behind_a_stop_gradient_is_not_embedded_again():
    calls = []

    def teacher(x):
        calls.append(len(x))
        return np.asarray(x)

    def two(w, x, rng):
        fixed = jax.pure_callback(teacher, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
        return w * x, jax.lax.stop_gradient(fixed)

    def loss(w, embeds, x, rng):
        return jnp.sum((embeds[0] - embeds[1]) ** 2)

    fn = jax.jit(cached_value_and_grad(two, loss, chunk=2))
    _, grads = jax.block_until_ready(fn(3.0, jnp.arange(6.0), jax.random.key(0)))
    assert float(grads) == 2 * 2 * 55
    assert calls == [2, 2, 2]


def test_half_precision_gradients_are_summed_in_float32():
    """4 + 1/64 is 4 in bfloat16: a sum in bfloat16 would lose the 63 small terms."""
    batch = jnp.ones(64, jnp.bfloat16).at[0].set(256.0)
    mean = lambda w, embeds, batch, rng: jnp.mean(embeds.astype(jnp.float32))  # noqa: E731
    _, grads = cached_value_and_grad(lambda w, x, rng: w * x, mean, chunk=1)(
        jnp.bfloat16(1.0), batch, jax.random.key(0)
    )
    assert grads.dtype == jnp.bfloat16
    assert float(grads) == float(jnp.bfloat16(319 / 64))


def test_bfloat16_towers_with_float32_parameters():
    params, batch = problem()

    def half(params, batch, rng):
        small = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x, (params, batch))
        return embed(*small, rng)

    key = jax.random.key(0)
    found = cached(half, clip, 5)(params, batch, key)
    expected = plain(half, clip)(params, batch, key)
    chex.assert_trees_all_equal_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=0.05, atol=0.02)


def test_one_trace_serves_all_steps():
    params, batch = problem()
    fn = jax.jit(chex.assert_max_traces(cached_value_and_grad(embed, together, chunk=5), n=1))
    first = fn(params, batch, jax.random.key(0))
    assert_close(fn(params, jax.tree.map(jnp.copy, batch), jax.random.key(1)), first)


def temporary_bytes(size, chunk):
    def deep(params, x, rng):
        for kernel in params["layers"]:
            x = jnp.tanh(x @ kernel)
        return x[:, :4]

    def spread(params, embeds, batch, rng):
        return jnp.sum(jnp.var(embeds, axis=0))

    params = {"layers": [jax.ShapeDtypeStruct((64, 64), jnp.float32)] * 8}
    args = (params, jax.ShapeDtypeStruct((size, 64), jnp.float32), jax.random.key(0))
    program = jax.jit(cached_value_and_grad(deep, spread, chunk=chunk)).lower(*args).compile()
    return program.memory_analysis().temp_size_in_bytes


def test_memory_is_the_activations_of_one_chunk():
    """Eight layers of 64 hold 2 KiB an example; beside them a twice as large batch adds its embeddings only."""
    whole, chunk64, chunk16 = (temporary_bytes(256, chunk) for chunk in (256, 64, 16))
    activations = 8 * 64 * 4
    assert whole - chunk64 > 0.75 * activations * (256 - 64)
    assert chunk64 - chunk16 > 0.75 * activations * (64 - 16)
    assert temporary_bytes(512, 64) - chunk64 < 0.1 * activations * 256


def test_errors_name_what_was_found():
    params, batch = problem()
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="chunk is 0, expected at least 1"):
        cached_value_and_grad(embed, clip, chunk=0)
    fn = cached_value_and_grad(embed, clip, chunk=4)
    with pytest.raises(ValueError, match=r"batch\['text'\] has shape \(11, 5\), expected 12 examples"):
        fn(params, batch | {"text": batch["text"][:11]}, key)
    with pytest.raises(ValueError, match="the batch has no array"):
        fn(params, {}, key)
    whole = cached_value_and_grad(lambda p, b, r: {"scale": p["log_scale"]}, clip, chunk=4)
    with pytest.raises(ValueError, match=r"embed returned embeddings\['scale'\] has shape \(\), expected 4 examples"):
        whole(params, batch, key)


DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mmjax import losses
from mmjax.optim import cached_value_and_grad

mesh = Mesh(np.asarray(jax.devices()), ("data",))
assert mesh.shape == {"data": 4}
draw = np.random.default_rng(0)
batch = {"x": draw.normal(size=(32, 6)).astype("f4"), "y": draw.normal(size=(32, 5)).astype("f4")}
params = {"x": draw.normal(size=(6, 3)).astype("f4"), "y": draw.normal(size=(5, 3)).astype("f4"), "scale": jnp.ones(())}
key = jax.random.key(0)

def embed(params, batch, rng):
    return jnp.tanh(batch["x"] @ params["x"]), jnp.tanh(batch["y"] @ params["y"])

def loss(params, embeds, batch, rng):
    return jnp.mean(losses.clip_loss(*embeds, scale=params["scale"]))

def local_loss(params, embeds, batch, rng):
    return jax.lax.pmean(jnp.mean(losses.clip_loss(*embeds, scale=params["scale"], axis_name="data")), "data")

expected = jax.value_and_grad(lambda params: loss(params, embed(params, batch, key), batch, key))(params)
close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
everywhere, split = (jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in ((params, P()), (batch, P("data"))))
for chunk in (16, 12):
    program = jax.jit(cached_value_and_grad(embed, loss, chunk=chunk)).lower(everywhere, split, key).compile()
    jax.tree.map(close, program(everywhere, split, key), expected)
    if chunk == 16:
        assert "f32[4,6]" in program.as_text() and "f32[16,6]" not in program.as_text(), "chunks are not spread"
specs = {"in_specs": (P(), P("data"), P()), "out_specs": P()}
for chunk in (2, 3):
    sharded = jax.shard_map(cached_value_and_grad(embed, local_loss, chunk=chunk), mesh=mesh, **specs)
    jax.tree.map(close, jax.jit(sharded)(params, batch, key), expected)
print("equal")
"""


@pytest.mark.slow
def test_four_devices_equal_one_under_jit_and_shard_map():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", DEVICES], capture_output=True, text=True, env=environment, check=False
    )
    assert found.stdout.strip() == "equal", found.stderr


@pytest.mark.slow
def test_examples_of_the_page_run():
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 5
    assert result.failed == 0

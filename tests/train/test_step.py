import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.method import Aux, SplitLoss, Term
from mmjax.methods.clip import clip
from mmjax.models import build_dual_encoder
from mmjax.train import create_state, make_train_step
from tests.train.toy import toy_batch, toy_method, toy_optimizer


def start(method, *, ema=False, **settings):
    variables = method.init(jax.random.key(1), toy_batch())
    optimizer = toy_optimizer(variables.params, trains=method.partition, **settings)
    return optimizer, create_state(variables, optimizer, key=jax.random.key(2), ema=ema)


def test_a_step_of_sgd_by_hand():
    method = toy_method()
    optimizer, state = start(method)
    batch = toy_batch()
    kernel, shift = state.trainable["head"]["kernel"], state.trainable["shift"]
    error = batch["x"] @ kernel + shift - batch["y"]
    new, metrics = jax.jit(make_train_step(method, optimizer))(state, batch)
    slope = 2 * batch["x"].T @ error / 8 + kernel
    np.testing.assert_allclose(new.trainable["head"]["kernel"], kernel - 0.1 * slope, rtol=1e-5)
    np.testing.assert_allclose(new.trainable["shift"], shift - 0.2 * jnp.mean(error), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], metrics["loss/square"] + 0.5 * metrics["loss/decay"], rtol=1e-6)
    assert (int(new.step), float(new.stats["seen"]), bool(new.healthy)) == (1, 8.0, True)
    np.testing.assert_allclose(metrics["learning_rate"], 0.1, rtol=1e-6)


def test_frozen_leaves_are_bit_identical_and_have_no_optimizer_state_or_gradient_norm():
    method = toy_method(partition=(("head/**", False), ("**", True)))
    optimizer, state = start(method, name="adam", learning_rate=0.1)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
    assert (3,) not in shapes
    frozen = np.asarray(state.frozen["head"]["kernel"])
    step = jax.jit(make_train_step(method, optimizer))
    error = toy_batch()["x"] @ frozen + state.trainable["shift"] - toy_batch()["y"]
    _, metrics = step(state, toy_batch())
    np.testing.assert_allclose(metrics["grad_norm"], abs(2 * jnp.mean(error)), rtol=1e-5)
    for seed in range(3):
        state, _ = step(state, toy_batch(seed))
    assert np.array_equal(state.frozen["head"]["kernel"], frozen)
    assert float(state.trainable["shift"]) != 0.0


def test_freezing_takes_the_frozen_part_out_of_the_backward_pass():
    wide = toy_batch(width=256, size=256)

    def flops(partition):
        method = toy_method(partition=partition)
        variables = method.init(jax.random.key(1), wide)
        optimizer = toy_optimizer(variables.params, trains=partition)
        state = create_state(variables, optimizer, key=jax.random.key(2))
        return jax.jit(make_train_step(method, optimizer)).lower(state, wide).compile().cost_analysis()["flops"]

    assert flops((("head/**", False), ("**", True))) < 0.7 * flops((("**", True),))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_keeps_the_state_and_so_does_every_step_after(bad):
    method = toy_method()
    optimizer, state = start(method, name="adam", learning_rate=0.1, grad_clip_norm=1.0)
    step = jax.jit(make_train_step(method, optimizer, ema_decay=None))
    good, _ = step(state, toy_batch())
    broken = toy_batch() | {"y": jnp.full(8, bad)}
    stopped, metrics = step(good, broken)
    assert not stopped.healthy
    assert not np.isfinite(metrics["loss"])
    after, _ = step(stopped, toy_batch())
    for kept in (stopped, after):
        chex.assert_trees_all_equal(kept.replace(healthy=good.healthy), good)
        assert not kept.healthy


def test_accumulated_steps_equal_the_full_batch_for_a_mean_loss():
    method = toy_method()
    optimizer, state = start(method)
    whole, _ = make_train_step(method, optimizer)(state, toy_batch())
    parts, _ = make_train_step(method, optimizer, accumulate=4, exact=False)(state, toy_batch())
    chex.assert_trees_all_close(parts.trainable, whole.trainable, rtol=1e-5)


def toy_contrast(*, partition=(("**", True),)):
    """`loss = sum over pairs of examples (e_i - shift)(e_j - shift) / B`, where `e = 1 + x @ kernel`."""

    def embed(params, stats, batch, rng, step):
        return 1.0 + batch["x"] @ params["head"]["kernel"]

    def head(params, stats, embeddings, batch, rng, step):
        value = jnp.sum(embeddings - params["shift"]) ** 2 / len(embeddings)
        return value, Aux({"pairs": Term(value)}, {}, stats)

    return toy_method(partition=partition)._replace(loss=SplitLoss(embed, head))


@pytest.mark.parametrize("accumulate", [2, 3, 8])
@pytest.mark.parametrize("partition", [(("**", True),), (("shift", False), ("**", True))])
def test_exact_micro_batches_make_the_step_of_the_whole_batch(accumulate, partition):
    method = toy_contrast(partition=partition)
    optimizer, state = start(method, learning_rate=1e-3)
    whole, metrics = make_train_step(method, optimizer)(state, toy_batch())
    exact, same_metrics = make_train_step(method, optimizer, accumulate=accumulate)(state, toy_batch())
    chex.assert_trees_all_close((exact, same_metrics), (whole, metrics), rtol=1e-5)
    assert float(metrics["grad_norm"]) > 1.0


def test_inexact_micro_batches_see_their_own_pairs_only():
    method = toy_contrast()
    optimizer, state = start(method)
    embeds = 1.0 + toy_batch()["x"] @ state.trainable["head"]["kernel"]
    _, apart = make_train_step(method, optimizer, accumulate=2, exact=False)(state, toy_batch())
    np.testing.assert_allclose(apart["loss"], (sum(embeds[::2]) ** 2 + sum(embeds[1::2]) ** 2) / 8, rtol=1e-5)


def test_clip_in_exact_micro_batches_with_a_remainder_and_a_frozen_tower():
    draw = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(draw.normal(size=(10, 16, 16, 3)), jnp.float32),
        "text": jnp.asarray(draw.integers(0, 32, (10, 8))),
        "text_mask": jnp.arange(8) < draw.integers(3, 9, 10)[:, None],
    }
    image = {"width": 16, "num_layers": 1, "output_dim": 16, "image_size": 16}
    text = {"width": 16, "num_layers": 1, "output_dim": 16, "vocab_size": 32, "context_length": 8}
    method = clip(build_dual_encoder("nano/8", image=image, text=text))
    variables = jax.jit(method.init)(jax.random.key(1), batch)
    optimizer = toy_optimizer(variables.params, trains=(("image/**", False), ("**", True)))
    state = create_state(variables, optimizer, key=jax.random.key(2))
    whole, metrics = jax.jit(make_train_step(method, optimizer))(state, batch)
    exact, same_metrics = jax.jit(make_train_step(method, optimizer, accumulate=4))(state, batch)
    chex.assert_trees_all_close(exact.trainable, whole.trainable, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_equal(exact.frozen, whole.frozen)
    chex.assert_trees_all_close(same_metrics, metrics, rtol=1e-4)


def test_a_loss_that_cannot_be_cut_is_refused_and_not_averaged_in_silence():
    method = toy_method()
    optimizer, _ = start(method)
    with pytest.raises(ValueError, match=r"4 exact micro-batches need a mmjax\.method\.SplitLoss, found 'loss'"):
        make_train_step(method, optimizer, accumulate=4)


def test_a_split_loss_is_its_head_on_its_embeddings_each_with_a_key_of_its_own():
    def embed(params, stats, batch, rng, step):
        return params["w"] * batch["x"] * jax.random.uniform(rng)

    def head(params, stats, embeddings, batch, rng, step):
        draw = jax.random.uniform(rng)
        return draw * jnp.sum(embeddings) ** 2, Aux({}, {"draw": draw}, {"step": step})

    rng, x = jax.random.key(5), jnp.arange(4.0)
    value, aux = SplitLoss(embed, head)({"w": 2.0}, {}, {"x": x}, rng, jnp.int32(7))
    own, chunk = jax.random.uniform(rng), jax.random.uniform(jax.random.fold_in(rng, 0))
    np.testing.assert_allclose(value, own * (2.0 * 6.0 * chunk) ** 2, rtol=1e-6)
    assert (float(aux.metrics["draw"]), int(aux.stats["step"])) == (float(own), 7)


def test_average_follows_its_closed_form_and_starts_at_the_parameters():
    method = toy_method()
    optimizer, state = start(method, ema=True)
    first = state.trainable["shift"]
    step = jax.jit(make_train_step(method, optimizer, ema_decay=0.75))
    one, _ = step(state, toy_batch())
    two, _ = step(one, toy_batch())
    expected = 0.75 * (0.75 * first + 0.25 * one.trainable["shift"]) + 0.25 * two.trainable["shift"]
    np.testing.assert_allclose(two.ema["shift"], expected, rtol=1e-6)


def test_randomness_of_a_step_depends_on_its_number_and_not_on_the_calls_before():
    def loss_with_noise(params, stats, batch, rng, step):
        value, aux = toy_method().loss(params, stats, batch, rng, step)
        return value, aux._replace(metrics={"draw": jax.random.uniform(rng)})

    method = toy_method()._replace(loss=loss_with_noise)
    optimizer, state = start(method)
    step = jax.jit(make_train_step(method, optimizer))
    one, first = step(state, toy_batch())
    _, second = step(one, toy_batch())
    _, again = step(one, toy_batch(5))
    assert float(first["draw"]) != float(second["draw"])
    assert float(second["draw"]) == float(again["draw"])


def test_one_trace_serves_all_steps():
    method = toy_method()
    optimizer, state = start(method)
    step = jax.jit(chex.assert_max_traces(make_train_step(method, optimizer), n=1))
    for seed in range(3):
        state, _ = step(state, toy_batch(seed))
    assert int(state.step) == 3

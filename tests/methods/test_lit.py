import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.methods.clip import clip
from mmjax.methods.lit import lit
from mmjax.models import build_dual_encoder
from mmjax.optim import build_optimizer
from mmjax.train import create_state, make_train_step

TOWER = {"width": 16, "num_layers": 1, "num_heads": 2, "output_dim": 16}


def model(*, dropout_rate=0.0, use_bias=False, **image):
    text = TOWER | {"vocab_size": 300, "context_length": 8}
    return build_dual_encoder(
        "nano/8",
        image=TOWER | {"image_size": 16, "dropout_rate": dropout_rate} | image,
        text=text,
        use_bias=use_bias,
    )


def batch(size=6):
    images, ids = jax.random.split(jax.random.key(3))
    return {
        "image": jax.random.normal(images, (size, 16, 16, 3)),
        "text": jax.random.randint(ids, (size, 8), 0, 300),
        "text_mask": jnp.ones((size, 8), bool),
        "index": jnp.arange(size),
    }


def banked(method, params, live):
    features = jax.jit(method.encoders["image"])(params, live)
    return {name: value for name, value in live.items() if name != "image"} | {"image_features": features}


def start(method, example):
    variables = method.init(jax.random.key(0), example)
    optimizer = build_optimizer(variables.params, name="sgd", learning_rate=1.0, trains=method.partition)
    return optimizer, create_state(variables, optimizer, key=jax.random.key(1))


def gradient(method, params, example):
    rng, step = jax.random.key(5), jnp.int32(0)
    return jax.value_and_grad(lambda p: method.loss(p, {}, example, rng, step)[0])(params)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_loss_and_gradient_from_the_bank_are_those_of_the_live_tower(loss):
    method = lit(model(use_bias=loss == "sigmoid"), loss=loss)
    live = batch()
    params = method.init(jax.random.key(0), live).params
    value, grads = gradient(method, params, live)
    banked_value, banked_grads = gradient(method, params, banked(method, params, live))
    np.testing.assert_allclose(banked_value, value, rtol=1e-6)
    chex.assert_trees_all_close(banked_grads, grads, rtol=1e-4, atol=1e-6)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["image"]))
    assert np.any(grads["text"]["proj"]["kernel"])


def test_the_loss_is_that_of_clip_and_so_is_the_gradient_of_what_trains():
    live = batch()
    params = lit(model()).init(jax.random.key(0), live).params
    value, grads = gradient(lit(model()), params, live)
    expected_value, expected = gradient(clip(model()), params, live)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    chex.assert_trees_all_close(grads["text"], expected["text"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads["log_scale"], expected["log_scale"], rtol=1e-4)


def test_the_locked_tower_has_no_dropout():
    method = lit(model(dropout_rate=0.5))
    params = method.init(jax.random.key(0), batch()).params
    values = [method.loss(params, {}, batch(), jax.random.key(seed), jnp.int32(0))[0] for seed in (0, 1)]
    assert float(values[0]) == float(values[1])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_moves_the_text_tower_alone(accumulate):
    method, live = lit(model()), batch()
    optimizer, state = start(method, live)
    step = jax.jit(make_train_step(method, optimizer, accumulate=accumulate))
    new, metrics = step(state, live)
    from_bank, _ = step(state, banked(method, optimizer.partition.join(state.trainable, state.frozen), live))
    chex.assert_trees_all_equal(new.frozen, state.frozen)
    assert set(state.frozen) == {"image"}
    assert set(state.trainable) == {"text", "log_scale"}
    assert float(metrics["update_norm"]) > 0
    chex.assert_trees_all_close(from_bank.trainable, new.trainable, rtol=1e-4, atol=1e-5)


def test_parameters_do_not_depend_on_whether_there_are_pictures():
    method, live = lit(model()), batch()
    features = {name: value for name, value in live.items() if name != "image"} | {"image_features": jnp.ones((6, 16))}
    chex.assert_trees_all_equal(method.init(jax.random.key(0), live), method.init(jax.random.key(0), features))


def test_a_step_from_the_bank_has_no_forward_of_the_tower():
    method, live = lit(model(num_layers=4)), batch(32)
    optimizer, state = start(method, live)
    params = optimizer.partition.join(state.trainable, state.frozen)
    step = jax.jit(make_train_step(method, optimizer))

    def flops(function, *args):
        return function.lower(*args).compile().cost_analysis()["flops"]

    tower = flops(jax.jit(method.encoders["image"]), params, live)
    saved = flops(step, state, live) - flops(step, state, banked(method, params, live))
    assert tower > 1e6
    np.testing.assert_allclose(saved, tower, rtol=0.02)

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.methods.clip import clip
from mmjax.methods.lit import lit
from mmjax.models import DualEncoder, build_dual_encoder, without_heads
from mmjax.optim import build_optimizer
from mmjax.train import create_state, make_train_step

TOWER = {"width": 16, "num_layers": 1, "num_heads": 2, "output_dim": 16}


HEADS = {"image_head": {"features": 6, "depth": 1}, "text_head": {"features": 6}}


def model(*, dropout_rate=0.0, use_bias=False, heads=None, **image):
    both = TOWER | {"dropout_rate": dropout_rate}
    return build_dual_encoder(
        "nano/8",
        image=both | {"image_size": 16} | image,
        text=both | {"vocab_size": 300, "context_length": 8},
        use_bias=use_bias,
        **(heads or {}),
    )


def batch(size=6):
    images, ids = jax.random.split(jax.random.key(3))
    return {
        "image": jax.random.normal(images, (size, 16, 16, 3)),
        "text": jax.random.randint(ids, (size, 8), 0, 300),
        "text_mask": jnp.ones((size, 8), bool),
        "index": jnp.arange(size),
    }


def banked(model, params, live, names=("image",)):
    """The batch with what the towers give in place of their input."""
    output, _ = jax.jit(without_heads(model).apply)(
        {"params": params}, live["image"], live["text"], text_mask=live["text_mask"]
    )
    replaced = {"image": ("image",), "text": ("text", "text_mask")}
    left = {name: value for name, value in live.items() if not any(name in replaced[tower] for tower in names)}
    return left | {f"{name}_features": getattr(output, f"{name}_embeds") for name in names}


def start(method, example):
    variables = initial(method, example)
    optimizer = build_optimizer(variables.params, name="sgd", learning_rate=1.0, trains=method.partition)
    return optimizer, create_state(variables, optimizer, key=jax.random.key(1))


def gradient(method, params, example):
    return jax.jit(jax.value_and_grad(lambda p: method.loss(p, {}, example, jax.random.key(5), jnp.int32(0))[0]))(
        params
    )


def initial(method, example):
    return jax.jit(method.init)(jax.random.key(0), example)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_loss_and_gradient_from_the_bank_are_those_of_the_live_tower(loss):
    towers = model(use_bias=loss == "sigmoid")
    method = lit(towers, loss=loss)
    live = batch()
    params = initial(method, live).params
    value, grads = gradient(method, params, live)
    banked_value, banked_grads = gradient(method, params, banked(towers, params, live))
    np.testing.assert_allclose(banked_value, value, rtol=1e-6)
    chex.assert_trees_all_close(banked_grads, grads, rtol=1e-4, atol=1e-6)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["image"]))
    assert np.any(grads["text"]["proj"]["kernel"])


def test_the_loss_is_that_of_clip_and_so_is_the_gradient_of_what_trains():
    live = batch()
    params = initial(lit(model()), live).params
    value, grads = gradient(lit(model()), params, live)
    expected_value, expected = gradient(clip(model()), params, live)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    chex.assert_trees_all_close(grads["text"], expected["text"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads["log_scale"], expected["log_scale"], rtol=1e-4)


@pytest.mark.parametrize("locked", [("image",), ("text",), ("image", "text")])
def test_locked_towers_have_neither_gradient_nor_dropout_and_heads_have_one(locked):
    """Between two keys only the towers that train may differ: with both locked the loss is the same."""
    method = lit(model(dropout_rate=0.5, heads=HEADS), locked=locked)
    params = initial(method, batch()).params
    run = jax.jit(jax.value_and_grad(lambda p, key: method.loss(p, {}, batch(), key, jnp.int32(0))[0]))
    (value, grads), (other, _) = (run(params, jax.random.key(seed)) for seed in (0, 1))
    assert (float(value) == float(other)) == (len(locked) == 2)
    for tower in ("image", "text"):
        assert any(np.any(leaf) for leaf in jax.tree.leaves(grads[tower])) == (tower not in locked)
        assert np.any(grads[f"{tower}_head"]["dense_0"]["kernel"])


@pytest.mark.parametrize("names", [("text",), ("image", "text")])
def test_heads_on_locked_towers_learn_the_same_from_banks(names):
    towers, live = model(heads=HEADS), batch()
    method = lit(towers, locked=("image", "text"))
    params = initial(method, live).params
    value, grads = gradient(method, params, live)
    banked_value, banked_grads = gradient(method, params, banked(towers, params, live, names))
    np.testing.assert_allclose(banked_value, value, rtol=1e-6)
    chex.assert_trees_all_close(banked_grads, grads, rtol=1e-4, atol=1e-6)
    _, state = start(method, banked(towers, params, live, names))
    assert set(state.trainable) == {"image_head", "text_head", "log_scale"}
    assert set(state.frozen) == {"image", "text"}


@pytest.mark.parametrize(
    ("settings", "heads", "message"),
    [
        ({"locked": ()}, None, "locked is empty.*the method 'clip'"),
        ({"locked": ("audio",)}, None, "locked is 'audio', expected one of 'image', 'text'"),
        ({"locked": ("image", "text")}, None, "both towers are locked and there is no head"),
    ],
)
def test_what_cannot_train_is_refused(settings, heads, message):
    with pytest.raises(ValueError, match=f"lit: {message}"):
        lit(model(heads=heads), **settings)


def test_one_tower_alone_has_no_contrast():
    with pytest.raises(ValueError, match=r"the model has no text tower; set model\.text"):
        lit(DualEncoder(model().image))


def test_a_bank_of_a_tower_that_trains_is_refused():
    method, live = lit(model()), batch()
    params = initial(method, live).params
    with pytest.raises(ValueError, match="text_features of a bank, but the text tower trains; lock it"):
        gradient(method, params, banked(model(), params, live, ("text",)))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_moves_the_text_tower_alone(accumulate):
    method, live = lit(model()), batch()
    optimizer, state = start(method, live)
    step = jax.jit(make_train_step(method, optimizer, accumulate=accumulate))
    new, metrics = step(state, live)
    from_bank, _ = step(state, banked(model(), optimizer.partition.join(state.trainable, state.frozen), live))
    chex.assert_trees_all_equal(new.frozen, state.frozen)
    assert set(state.frozen) == {"image"}
    assert set(state.trainable) == {"text", "log_scale"}
    assert float(metrics["grad_norm"]) > 0
    chex.assert_trees_all_close(from_bank.trainable, new.trainable, rtol=1e-4, atol=1e-5)


def test_parameters_do_not_depend_on_whether_there_are_pictures():
    method, live = lit(model()), batch()
    features = {name: value for name, value in live.items() if name != "image"} | {"image_features": jnp.ones((6, 16))}
    chex.assert_trees_all_equal(initial(method, live), initial(method, features))


def test_a_step_from_the_bank_has_no_forward_of_the_tower():
    towers, live = model(num_layers=4), batch(32)
    method = lit(towers)
    optimizer, state = start(method, live)
    params = optimizer.partition.join(state.trainable, state.frozen)
    step = jax.jit(make_train_step(method, optimizer))

    def flops(function, *args):
        return function.lower(*args).compile().cost_analysis()["flops"]

    tower = flops(jax.jit(method.encoders["image"]), params, live)
    saved = flops(step, state, live) - flops(step, state, banked(towers, params, live))
    assert tower > 1e6
    np.testing.assert_allclose(saved, tower, rtol=0.02)

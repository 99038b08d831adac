import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.optim import build_optimizer, lora_plus
from mmjax.paths import flatten

PARAMS = {
    "fc1": {
        "a": jnp.full((3, 2), 2.0),
        "b": jnp.full((2, 3), 2.0),
        "m": jnp.full((4, 3), 2.0),
        "bias": jnp.full(3, 2.0),
    },
    "token_embedding": {"a": jnp.full((5, 2), 2.0), "b": jnp.full((2, 3), 2.0)},
}
GRADS = optax.tree.ones_like(PARAMS)


def rates(optimizer, *, steps=1):
    """The first change of each leaf, which for Adam is minus its learning rate, decay apart."""
    state = optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(GRADS, state, PARAMS)
    return {path: -leaf.ravel()[0] for path, leaf in flatten(updates).items()}


def test_rates_by_leaf():
    expected = {"fc1/a": 0.01, "fc1/b": 0.08, "fc1/m": 0.08, "fc1/bias": 0.08}
    expected |= {"token_embedding/a": 1e-6, "token_embedding/b": 1e-6}
    found = rates(lora_plus(0.01, ratio=8.0))
    assert {path: pytest.approx(rate, rel=1e-4) for path, rate in expected.items()} == found


def test_decay_is_of_matrices_times_their_rate():
    decayed, plain = rates(lora_plus(0.01, ratio=8.0, weight_decay=0.5)), rates(lora_plus(0.01, ratio=8.0))
    difference = {path: float(decayed[path] - plain[path]) for path in plain}
    assert difference["fc1/a"] == pytest.approx(0.5 * 0.01 * 2, rel=1e-3)
    assert difference["fc1/b"] == pytest.approx(0.5 * 0.08 * 2, rel=1e-3)
    assert difference["fc1/m"] == difference["fc1/bias"] == 0.0


def test_a_schedule_scales_both():
    schedule = optax.piecewise_constant_schedule(0.01, {1: 0.1})
    found = rates(lora_plus(schedule, ratio=8.0), steps=2)
    assert found["fc1/a"] == pytest.approx(0.001, rel=1e-4)
    assert found["fc1/b"] == pytest.approx(0.008, rel=1e-4)


def test_a_rule_of_a_config_is_the_same():
    pair = {"fc1": {name: PARAMS["fc1"][name] for name in ("a", "b")}}
    grads = optax.tree.ones_like(pair)
    rules = [("**/b", {"rate": 4.0}), ("**", {})]
    named = build_optimizer(pair, learning_rate=0.01, weight_decay=0.1, rules=rules).transformation
    own = lora_plus(0.01, ratio=4.0, weight_decay=0.1)
    found, expected = (flatten(o.update(grads, o.init(pair), pair)[0]) for o in (named, own))
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=1e-5)

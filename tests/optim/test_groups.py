import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.optim.groups import by_group

PATHS = {"matrices": ["a/w", "c"], "rest": ["a/b"]}


def params():
    w, b, c = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(3, 2), (2,), (2, 2)]))
    return {"a": {"w": w, "b": b}, "c": c}


def test_equals_optax_partition_without_its_placeholders():
    optimizers = {"matrices": optax.adamw(0.1, weight_decay=0.3), "rest": optax.sgd(0.5, momentum=0.9)}
    ours = by_group(optimizers, PATHS)
    theirs = optax.partition(optimizers, {"a": {"w": "matrices", "b": "rest"}, "c": "matrices"})
    tree = params()
    state, expected_state = ours.init(tree), theirs.init(tree)
    for _ in range(3):
        updates, state = ours.update(tree, state, tree)
        expected, expected_state = theirs.update(tree, expected_state, tree)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        tree = optax.apply_updates(tree, updates)
    assert jax.tree.map(jnp.shape, state["matrices"][0].mu) == {"a": {"w": (3, 2)}, "c": (2, 2)}
    assert jax.tree.map(jnp.shape, state["rest"][0].trace) == {"a": {"b": (2,)}}


def test_extra_arguments_reach_the_optimizers_that_ask():
    optimizer = by_group({"matrices": optax.polyak_sgd(), "rest": optax.sgd(1.0)}, PATHS)
    tree = params()
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree, value=jnp.float32(0.5))
    norm = sum(float(jnp.sum(x**2)) for x in (tree["a"]["w"], tree["c"]))
    np.testing.assert_allclose(updates["c"], -tree["c"] * 0.5 / norm, rtol=1e-5)


def test_parameters_may_be_left_out():
    tree = params()
    optimizer = by_group({"matrices": optax.sgd(1.0), "rest": optax.sgd(2.0)}, PATHS)
    updates, _ = optimizer.update(tree, optimizer.init(tree))
    np.testing.assert_array_equal(updates["a"]["b"], -2.0 * tree["a"]["b"])

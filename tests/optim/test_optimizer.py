import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.optim import build_optimizer, optimizer_names
from mmjax.paths import NoMatchError, flatten

SHAPES = {
    "image/patch_embed/kernel": (2, 2, 3, 4),
    "image/position_embedding": (5, 4),
    "image/encoder/block_0/mlp/fc1/kernel": (4, 6),
    "image/encoder/block_0/mlp/fc1/bias": (6,),
    "image/proj/kernel": (4, 2),
    "text/encoder/blocks/ln_1/scale": (3, 4),
    "text/encoder/blocks/mlp/fc1/kernel": (3, 4, 7),
    "text/encoder/blocks/gamma_1": (3, 4),
    "log_scale": (),
}

LAYER = {"fc1/kernel": (4, 6), "fc1/bias": (6,)}


def random_tree(seed=0, shapes=SHAPES):
    tree = {}
    for i, (path, shape) in enumerate(shapes.items()):
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = jax.random.normal(jax.random.key(seed + i), shape)
    return tree


def run(optimizer, params, gradients, steps=3):
    trainable, frozen = optimizer.partition.split(params)
    gradients, _ = optimizer.partition.split(gradients)
    trainable, state = run_optax(optimizer.transformation, trainable, gradients, steps)
    return optimizer.partition.join(trainable, frozen), state


def run_optax(transformation, params, gradients, steps=3):
    @jax.jit
    def step(params, state):
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = transformation.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


MATRICES = {"a/kernel": (4, 3), "b/kernel": (3, 3)}


@pytest.mark.parametrize("name", ["adamw", "lion", "lamb", "nadamw"])
def test_plain_config_is_optax_bit_for_bit(name):
    params, gradients = random_tree(0, MATRICES), random_tree(9, MATRICES)
    optimizer = build_optimizer(
        params,
        name=name,
        learning_rate=0.1,
        schedule={"name": "warmup_cosine", "warmup_steps": 2},
        total_steps=5,
        weight_decay=0.2,
        b2=0.98,
    )
    expected = getattr(optax, name)(optimizer.schedule, b2=0.98, weight_decay=0.2)
    assert_equal_trees(run(optimizer, params, gradients)[0], run_optax(expected, params, gradients)[0])


def test_decay_of_matrices_only_is_optax_with_a_mask():
    params, gradients = random_tree(), random_tree(20)
    optimizer = build_optimizer(params, learning_rate=0.1, weight_decay=0.2, b1=0.8, eps=1e-6)
    decayed = {leaf.path for group in optimizer.groups.values() if group.weight_decay for leaf in group.leaves}
    assert decayed == {path for path in SHAPES if path.endswith("kernel")}
    mask = {path: path.endswith("kernel") for path in SHAPES}
    mask = jax.tree.unflatten(jax.tree.structure(params), [mask[path] for path in sorted(mask)])
    expected = optax.adamw(0.1, b1=0.8, eps=1e-6, weight_decay=0.2, mask=mask)
    assert_equal_trees(run(optimizer, params, gradients)[0], run_optax(expected, params, gradients)[0])


def test_decoupled_decay_is_added_where_the_optimizer_has_none():
    params = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full((1,), 2.0)}
    gradients = jax.tree.map(lambda x: jnp.full_like(x, 3.0), params)
    schedule = {"name": "warmup_constant", "warmup_steps": 2}
    optimizer = build_optimizer(params, name="sgd", learning_rate=0.2, schedule=schedule, weight_decay=0.5)
    result, _ = run(optimizer, params, gradients, steps=2)
    first = 2.0 - 0.1 * (3.0 + 0.5 * 2.0)
    np.testing.assert_allclose(result["kernel"], first - 0.2 * (3.0 + 0.5 * first), rtol=1e-6)
    np.testing.assert_allclose(result["bias"], 2.0 - 0.3 * 3.0, rtol=1e-6)


def test_muon_decays_what_it_gives_to_adam_too():
    """Muon is for matrices of two axes; its Adam part, with a decay of its own name, has the rest."""
    params = random_tree(0, {"conv/kernel": (2, 2, 3, 4), "dense/kernel": (4, 3)})
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = build_optimizer(params, name="muon", learning_rate=0.1, weight_decay=0.5)
    result, _ = run(optimizer, params, zeros, steps=1)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, 0.95 * old, rtol=1e-5), result, params)


def test_rules_set_rates_and_decays():
    params = random_tree()
    ones = jax.tree.map(jnp.ones_like, params)
    rules = [("image/proj/*", {"rate": 3.0, "weight_decay": 0.0}), ("image/**", {"rate": 0.5}), ("**", {})]
    optimizer = build_optimizer(params, name="sgd", learning_rate=0.1, weight_decay=0.2, rules=rules)
    result, _ = run(optimizer, params, ones, steps=1)
    rates = {path: 0.5 for path in SHAPES if path.startswith("image")} | {"image/proj/kernel": 3.0}
    for path, old in flatten(params).items():
        decay = 0.2 if path.endswith("kernel") and "proj" not in path else 0.0
        expected = old - 0.1 * rates.get(path, 1.0) * (1.0 + decay * old)
        np.testing.assert_allclose(flatten(result)[path], expected, rtol=1e-5, atol=1e-6, err_msg=path)


def test_layer_decay_multiplies_the_rates_of_rules():
    params = random_tree()
    rules = [("image/**", {"rate": 2.0}), ("**", {})]
    optimizer = build_optimizer(params, learning_rate=0.1, rules=rules, layer_decay=0.5)
    rates = {leaf.path: group.rate for group in optimizer.groups.values() for leaf in group.leaves}
    assert rates["image/patch_embed/kernel"] == 2.0 * 0.25
    assert rates["image/encoder/block_0/mlp/fc1/bias"] == 2.0 * 0.5
    assert rates["image/proj/kernel"] == 2.0
    assert rates["log_scale"] == 1.0


def test_own_patterns_say_what_is_not_decayed():
    params = random_tree()
    optimizer = build_optimizer(params, learning_rate=0.1, weight_decay=0.2, undecayed=["image/**"])
    decayed = {leaf.path for group in optimizer.groups.values() if group.weight_decay for leaf in group.leaves}
    assert decayed == {path for path in SHAPES if path.startswith("text")}
    everything = build_optimizer(params, learning_rate=0.1, weight_decay=0.2, undecayed=[])
    undecayed = {leaf.path for g in everything.groups.values() if not g.weight_decay for leaf in g.leaves}
    assert undecayed == {path for path, shape in SHAPES.items() if len(shape) < 2}


def test_frozen_leaves_keep_every_bit_and_have_no_state():
    params, gradients = random_tree(), random_tree(20)
    frozen_shape = params["image"]["proj"]["kernel"].shape
    rules = [("image/**", {"frozen": True}), ("**", {})]
    optimizer = build_optimizer(params, learning_rate=0.1, weight_decay=0.2, rules=rules)
    result, state = run(optimizer, params, gradients)
    assert_equal_trees(result["image"], params["image"])
    assert not np.array_equal(result["log_scale"], params["log_scale"])
    sizes = sum(leaf.size for leaf in optimizer.partition.trainable)
    arrays = [x for x in jax.tree.leaves(state) if x.dtype == jnp.float32]
    assert sum(x.size for x in arrays) == 2 * sizes
    assert frozen_shape not in {x.shape for x in arrays}


def test_the_norm_is_clipped_over_all_that_trains():
    params = {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1), "frozen": jnp.zeros(1)}
    gradients = {"kernel": jnp.full((1, 1), 3.0), "bias": jnp.full(1, 4.0), "frozen": jnp.full(1, 1e6)}
    rules = [("frozen", {"frozen": True}), ("bias", {"rate": 2.0}), ("**", {})]
    optimizer = build_optimizer(params, name="sgd", learning_rate=1.0, grad_clip_norm=1.0, rules=rules)
    result, _ = run(optimizer, params, gradients, steps=1)
    np.testing.assert_allclose([result["kernel"][0, 0], result["bias"][0]], [-0.6, -1.6], rtol=1e-6)


def test_bounds_hold_after_every_step():
    params = {"w": jnp.ones((2, 2)), "log_scale": jnp.float32(math.log(1 / 0.07))}
    high = float(np.float32(math.log(100.0)))
    optimizer = build_optimizer(params, learning_rate=0.9, bounds={"log_scale": (0.0, high)})
    seen = []
    for sign in (-1.0, 1.0):
        result, _ = run(optimizer, params, jax.tree.map(lambda x, s=sign: jnp.full_like(x, s), params), steps=5)
        seen.append(float(result["log_scale"]))
    assert seen == [high, 0.0]


def test_a_frozen_leaf_may_have_bounds_but_no_absent_one():
    params = random_tree()
    rules = [("log_scale", {"frozen": True}), ("**", {})]
    optimizer = build_optimizer(params, learning_rate=0.1, rules=rules, bounds={"log_scale": (0.0, 1.0)})
    result, _ = run(optimizer, params, params)
    assert result["log_scale"] == params["log_scale"]
    with pytest.raises(NoMatchError, match="'logit_scale': did you mean 'log_scale'"):
        build_optimizer(params, learning_rate=0.1, bounds={"logit_scale": (0.0, 1.0)})


def test_the_schedule_for_the_log_is_the_rate_of_the_update():
    params = {"b": jnp.zeros(())}
    schedule = {"name": "warmup_linear", "warmup_steps": 2}
    optimizer = build_optimizer(params, name="sgd", learning_rate=1.0, schedule=schedule, total_steps=6)
    state = optimizer.transformation.init(params)
    for step in range(7):
        updates, state = optimizer.transformation.update({"b": jnp.ones(())}, state, params)
        assert updates["b"] == -optimizer.schedule(step)


def test_groups_do_not_depend_on_the_order_of_the_tree():
    params = random_tree()
    backwards = random_tree(0, dict(reversed(SHAPES.items())))
    settings = {"learning_rate": 0.1, "weight_decay": 0.2, "rules": [("text/**", {"rate": 2.0}), ("**", {})]}
    a, b = (build_optimizer(tree, **settings) for tree in (params, backwards))
    assert a.groups == b.groups
    states = [o.transformation.init(o.partition.split(t)[0]) for o, t in ((a, params), (b, backwards))]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_shapes_do_as_well_as_arrays():
    params = random_tree()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    settings = {"learning_rate": 0.1, "weight_decay": 0.2, "layer_decay": 0.9}
    assert build_optimizer(shapes, **settings).groups == build_optimizer(params, **settings).groups


def test_a_second_step_is_not_traced_again():
    params = random_tree()
    rules = [("text/**", {"frozen": True}), ("**/proj/*", {"rate": 0.1}), ("**", {})]
    optimizer = build_optimizer(
        params,
        learning_rate=0.1,
        schedule={"name": "warmup_cosine", "warmup_steps": 2},
        total_steps=9,
        weight_decay=0.2,
        grad_clip_norm=1.0,
        rules=rules,
        bounds={"log_scale": (0.0, 4.6)},
    )
    trainable, frozen = optimizer.partition.split(params)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(trainable, state):
        def loss(trainable):
            return sum(jnp.sum(x**2) for x in jax.tree.leaves(optimizer.partition.join(trainable, frozen)))

        updates, state = optimizer.transformation.update(jax.grad(loss)(trainable), state, trainable)
        return optax.apply_updates(trainable, updates), state

    state = optimizer.transformation.init(trainable)
    before = trainable
    for _ in range(3):
        trainable, state = step(trainable, state)
    assert jax.tree.structure(trainable) == jax.tree.structure(before)


def test_report_names_rules_and_groups():
    shapes = {"kernel": (4, 3), "bias": (3,), "log_scale": ()}
    rules = [("log_scale", {"frozen": True}), ("**", {"rate": 0.25})]
    optimizer = build_optimizer(random_tree(0, shapes), learning_rate=0.1, weight_decay=0.2, rules=rules)
    assert [line.split() for line in str(optimizer).splitlines()] == [
        ["leaves", "trainable", "frozen", "rule"],
        ["1", "0", "1", "log_scale", "frozen=True"],
        ["2", "15", "0", "**", "rate=0.25"],
        ["3", "15", "1", "(total)"],
        [],
        ["leaves", "parameters", "rate", "weight", "decay"],
        ["1", "3", "0.25", "0", "group_0,", "e.g.", "bias"],
        ["1", "12", "0.25", "0.2", "group_1,", "e.g.", "kernel"],
    ]


def test_names_are_optimizers_that_can_be_built():
    params = {"kernel": jax.ShapeDtypeStruct((4, 4), jnp.float32)}
    names = set(optimizer_names())
    assert {"adamw", "sgd", "lion", "adafactor", "muon", "prodigy"} <= names
    assert not {"schedule_free_adamw", "scale_by_learning_rate", "adaptive_grad_clip"} & names
    for name in ("acprop", "adafactor", "adan", "lars", "novograd", "prodigy", "rmsprop"):
        build_optimizer(params, name=name, learning_rate=0.1, weight_decay=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adamwx"}, "no optimizer 'adamwx'; did you mean 'adamw'"),
        ({"name": "lbfgs"}, "lbfgs does not run on a schedule, gradients and parameters alone"),
        ({"name": "rprop"}, "rprop does not run on a schedule"),
        ({"name": "dpsgd"}, "dpsgd lacks 'l2_norm_clip', 'noise_multiplier', 'seed'"),
        ({"beta2": 0.9}, "adamw takes no argument 'beta2'; .*Its arguments are b1=0.9, b2=0.999"),
        ({"mask": None}, "adamw takes no argument 'mask'"),
        ({"name": "muon", "adam_weight_decay": 0.1}, "muon takes no argument 'adam_weight_decay'"),
        ({"schedule": {"warmup_steps": 3}}, "expected a mapping with 'name'"),
        ({"schedule": {"name": "warmup_cosine", "warmup_steps": 3}}, "warmup_cosine lacks 'total_steps'"),
        ({"grad_clip_norm": 0.0}, "grad_clip_norm is 0.0, expected above 0"),
        ({"weight_decay": -0.1}, "weight decay of .* is -0.1, expected 0 or more"),
        ({"rules": [("log_scale", {"weight_decay": 0.1}), ("**", {})]}, "Rule.*log_scale.* decays nothing"),
        ({"undecayed": ["nothing/*"]}, "patterns match none"),
        ({"trains": [("**", False)]}, "nothing trains"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(random_tree(), learning_rate=0.1, **settings)


def test_muon_updates_scanned_layers_as_it_does_single_ones():
    shapes = {f"encoder/block_{i}/mlp/{name}": shape for i in (0, 1) for name, shape in LAYER.items()}
    params, gradients = (random_tree(seed, shapes | {"proj/kernel": (4, 2)}) for seed in (0, 50))

    def update(params, gradients):
        transformation = build_optimizer(params, name="muon", learning_rate=0.1, weight_decay=0.1).transformation
        return run_optax(transformation, params, gradients, 3)[0]

    def stack(tree):
        first, second = tree["encoder"]["block_0"], tree["encoder"]["block_1"]
        return tree | {"encoder": {"blocks": jax.tree.map(lambda *layers: jnp.stack(layers), first, second)}}

    scanned, single = update(stack(params), stack(gradients)), stack(update(params, gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), scanned, single)

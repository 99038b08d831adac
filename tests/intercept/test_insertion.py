import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.intercept import edit, find_targets, insert, tap, within
from mmjax.paths import NoMatchError
from tests.intercept.toys import KINDS, LAYERS, STACKED, WIDTH, Model, by_hand, inputs, stacked, variables

GATES = np.array([[1.0, 0.0, 1.0, 2.0], [0.5, 1.0, 0.0, 1.0], [2.0, 1.0, 1.0, 0.0]], np.float32)


def gate(params, value, call):
    return params["gate"] * value


def placed(kind, leaves):
    """Parameters of each layer, `[LAYERS, ...]`, at the MLPs of a model of this kind."""
    if kind in STACKED:
        return {"encoder": {"blocks": {"mlp": leaves}}}
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], leaves) for i in range(LAYERS)]
    return {"encoder": {f"block_{i}": {"mlp": layer} for i, layer in enumerate(layers)}}


def gated(kind, gates, **around):
    return insert(Model(kind).apply, {"encoder/*/mlp": gate}, placed(kind, {"gate": gates}))


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_its_own_parameters_as_if_by_hand(kind):
    def loss(gates):
        return jnp.sum(gated(kind, gates)(variables(kind), inputs()) ** 2)

    def expected(gates):
        return jnp.sum(by_hand(stacked(), inputs(), gates)[0] ** 2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(GATES)
    np.testing.assert_allclose(value, expected(GATES), rtol=1e-5)
    np.testing.assert_allclose(gradient, jax.grad(expected)(GATES), rtol=1e-4, atol=1e-5)


def test_under_vmap_over_the_parameters():
    many = np.stack([GATES, GATES[::-1], 0 * GATES])
    outputs = jax.vmap(lambda gates: gated("scan_remat", gates)(variables("scan_remat"), inputs()))(many)
    for output, gates in zip(outputs, many, strict=True):
        np.testing.assert_allclose(output, by_hand(stacked(), inputs(), gates)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["unrolled", "scan_remat"])
def test_nested_with_taps_edits_and_insertions(kind):
    """The outer acts on what the inner has made; a tap makes the collection mutable, which must not matter."""
    block = "encoder/blocks" if kind == "scan_remat" else "encoder/block_*"
    inner = gated(kind, GATES)
    doubled = edit(inner, {f"{block}/mlp": lambda value, call: 2 * value})
    outer = insert(doubled, {f"{block}/mlp": gate}, placed(kind, {"gate": GATES[::-1]}))
    output, values = jax.jit(tap(outer, f"{block}/mlp"))(variables(kind), inputs())
    gates = 2 * GATES * GATES[::-1]
    expected, seen = by_hand(stacked(), inputs(), gates)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    found = values["encoder/blocks/mlp"] if kind == "scan_remat" else np.stack(list(values.values()))
    np.testing.assert_allclose(found, gates[:, None] * seen["mlp"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outer(variables(kind), inputs()), tap(outer, "head")(variables(kind), inputs())[0])


class Residual(nn.Module):
    """`x + up(x)`."""

    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(WIDTH, name="up")(x)


@pytest.mark.parametrize("kind", ["unrolled", "scan"])
def test_a_module_is_a_branch_and_its_modules_can_be_tapped(kind):
    rng = np.random.default_rng(2)
    shapes = {"kernel": (LAYERS, WIDTH, WIDTH), "bias": (LAYERS, WIDTH)}
    up = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    f = insert(Model(kind).apply, {"encoder/*/mlp": Residual()}, placed(kind, {"up": up}))
    output, values = tap(f, ["**/adapter/up", "**/mlp"])(variables(kind), inputs())
    x, layers = inputs(), stacked()["encoder"]["blocks"]["mlp"]
    for i in range(LAYERS):
        mlp = jnp.tanh(x @ layers["fc1"]["kernel"][i] + layers["fc1"]["bias"][i]) @ layers["fc2"]["kernel"][i]
        mlp += layers["fc2"]["bias"][i]
        branch = mlp @ up["kernel"][i] + up["bias"][i]
        found = values["encoder/blocks/mlp/adapter/up"][i] if kind == "scan" else None
        found = values[f"encoder/block_{i}/mlp/adapter/up"] if found is None else found
        np.testing.assert_allclose(found, branch, rtol=1e-4, atol=1e-5)
        x = x + mlp + branch
    np.testing.assert_allclose(output, x @ stacked()["head"]["kernel"] + stacked()["head"]["bias"], rtol=1e-4)


def test_modules_of_a_branch_can_be_inserted_into_but_need_not_be():
    params = {"up": {"kernel": jnp.ones((LAYERS, WIDTH, WIDTH)), "bias": jnp.zeros((LAYERS, WIDTH))}}
    inner = insert(Model("scan").apply, {"**/mlp": Residual()}, placed("scan", params))
    at_base = placed("scan", {"fc1": {"gate": jnp.ones((LAYERS, 1))}, "fc2": {"gate": jnp.ones((LAYERS, 1))}})
    same = insert(inner, {"**/{fc1,fc2,up}": gate}, at_base)
    np.testing.assert_allclose(same(variables("scan"), inputs()), inner(variables("scan"), inputs()), rtol=1e-6)
    within_branch = placed("scan", {"adapter": {"up": {"gate": jnp.zeros((LAYERS, 1))}}})
    off = insert(inner, {"**/up": gate}, within_branch)
    np.testing.assert_allclose(
        off(variables("scan"), inputs()), Model("scan").apply(variables("scan"), inputs()), rtol=1e-5
    )


def test_a_branch_reads_layers_arguments_and_what_was_called_before():
    def branch(params, value, call):
        assert list(call.children) == ["fc1", "fc2"]
        hidden = call.children["fc2"].input
        return value + params["w"] * (call.layer + 1) * hidden.sum(-1, keepdims=True) + call.input

    weights = jnp.array([0.1, 0.2, 0.3])
    f = jax.jit(insert(Model("scan_remat").apply, {"**/mlp": branch}, placed("scan_remat", {"w": weights})))
    x, layers = inputs(), stacked()["encoder"]["blocks"]["mlp"]
    for i in range(LAYERS):
        hidden = jnp.tanh(x @ layers["fc1"]["kernel"][i] + layers["fc1"]["bias"][i])
        mlp = hidden @ layers["fc2"]["kernel"][i] + layers["fc2"]["bias"][i]
        x = x + mlp + weights[i] * (i + 1) * hidden.sum(-1, keepdims=True) + x
    expected = x @ stacked()["head"]["kernel"] + stacked()["head"]["bias"]
    np.testing.assert_allclose(f(variables("scan_remat"), inputs()), expected, rtol=1e-4)


def test_all_arguments_are_within_reach():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x, *, factor=1.0):
            return factor * nn.Dense(WIDTH, name="dense")(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Scaled(name="scaled")(x, factor=3.0)

    def set_factor(params, arguments, call):
        (x,), kwargs = arguments
        assert kwargs == {"factor": 3.0}
        return (x,), {"factor": params["factor"]}

    params = Outer().init(jax.random.key(0), inputs())
    plain = Outer().apply(params, inputs())
    f = insert(Outer().apply, {"scaled:args": set_factor}, {"scaled": {"factor": 6.0}})
    np.testing.assert_allclose(f(params, inputs()), 2 * plain, rtol=1e-6)
    whole = insert(Outer().apply, {":args": lambda own, a, call: ((2 * a[0][0],), a[1])}, {"any": jnp.ones(())})
    np.testing.assert_allclose(whole(params, inputs()), Outer().apply(params, 2 * inputs()), rtol=1e-6)


@pytest.mark.parametrize("kind", ["unrolled", "scan_remat"])
def test_within_a_module_it_is_the_whole_model(kind):
    """Patterns, sites, targets are relative; what is around sees the whole model."""
    params = placed(kind, {"gate": GATES})["encoder"]
    transformation = within("encoder", lambda apply: insert(apply, {"*/mlp": gate}, params))
    output, values = tap(transformation(Model(kind).apply), "head")(variables(kind), inputs())
    np.testing.assert_allclose(output, by_hand(stacked(), inputs(), GATES)[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(output, values["head"])
    targets = within("encoder", lambda apply: lambda *args: find_targets(apply, ["**/mlp/fc1"], *args))
    found = targets(Model(kind).apply)(variables(kind), inputs())["**/mlp/fc1"]
    assert {target.stack for target in found.values()} == {(LAYERS,) if kind == "scan_remat" else ()}
    assert set(found) == ({"blocks/mlp/fc1"} if kind == "scan_remat" else {f"block_{i}/mlp/fc1" for i in range(LAYERS)})


def test_a_run_within_a_module_sees_nothing_else():
    f = within("encoder", lambda apply: tap(apply, "head"))
    with pytest.raises(NoMatchError, match="'head'"):
        f(Model("unrolled").apply)(variables("unrolled"), inputs())


def test_sites_that_are_not_called_do_nothing():
    params = {"image": {"gate": jnp.zeros(())}, "head": {"gate": jnp.ones(())}}
    f = insert(Model("unrolled").apply, {"{head,image}": gate}, params)
    np.testing.assert_array_equal(
        f(variables("unrolled"), inputs()), Model("unrolled").apply(variables("unrolled"), inputs())
    )


def test_a_pattern_without_site_is_refused():
    with pytest.raises(NoMatchError, match=re.escape("'encoder/*/mpl': did you mean 'encoder/blocks/mlp'")):
        insert(Model("scan").apply, {"encoder/*/mpl": gate}, placed("scan", {"gate": GATES}))


def test_a_matched_module_without_parameters_is_refused():
    params = {"encoder": {"block_0": {"mlp": {"gate": 1.0}}}}
    f = insert(Model("unrolled").apply, {"encoder/*/mlp": gate}, params)
    with pytest.raises(
        NoMatchError, match=r"'encoder/block_1/mlp', for which there are no parameters: .*'encoder/block_0/mlp'"
    ):
        f(variables("unrolled"), inputs())


def test_a_stack_that_does_not_carry_the_collection_is_refused():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(WIDTH, name="dense")(x), None

    class Uncarried(nn.Module):
        @nn.compact
        def __call__(self, x):
            stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
            return stack(name="layers")(x, None)[0]

    params = Uncarried().init(jax.random.key(0), inputs())
    f = insert(Uncarried().apply, {"**/dense": gate}, {"layers": {"dense": {"gate": jnp.ones(2)}}})
    with pytest.raises(ValueError, match=r"'layers/dense' is inside scan\(layers\), which does not carry"):
        f(params, inputs())


def test_parameters_are_left_as_they_are():
    """Flax writes into mutable collections, in which they travel when there is a tap."""
    params = placed("scan", {"gate": GATES, "empty": {}})
    jax.jit(tap(insert(Model("scan").apply, {"**/mlp": gate}, params), "head"))(variables("scan"), inputs())
    own = params["encoder"]["blocks"]["mlp"]
    assert own.pop("gate") is GATES
    assert own == {"empty": {}}

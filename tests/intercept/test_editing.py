import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.intercept import edit, tap
from mmjax.paths import NoMatchError
from tests.intercept.toys import (
    KINDS,
    LAYERS,
    STACKED,
    WIDTH,
    Layer,
    Mlp,
    Model,
    by_hand,
    inputs,
    layer_values,
    stacked,
    variables,
)


def gated(gate):
    """An edit that multiplies by `gate` of the layer, whether it has a path or an index."""

    def fn(value, call):
        layer = int(call.path.split("/")[1].removeprefix("block_")) if call.layer is None else call.layer
        return value * jnp.asarray(gate)[layer]

    return fn


@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_changes_no_bit(kind):
    model, params, x = Model(kind), variables(kind), inputs()
    same = {"**": lambda value, call: value, "**:in": lambda value, call: value}
    np.testing.assert_array_equal(edit(model.apply, same)(params, x), model.apply(params, x))


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_is_edited_as_if_by_hand(kind):
    x, gate = inputs(), (1.0, 0.0, 1.0)
    expected, seen = by_hand(stacked(), x, gate)
    assert not np.allclose(expected, by_hand(stacked(), x)[0])
    f = tap(edit(Model(kind).apply, {"encoder/*/mlp": gated(gate)}), "encoder/*/mlp")
    with jax.checking_leaks():
        output, values = jax.jit(f)(variables(kind), x)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    edited = np.array(gate)[:, None, None] * seen["mlp"]
    np.testing.assert_allclose(layer_values(kind, values, "mlp"), edited, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["unrolled", "scan_remat", "scan_body"])
def test_gradients_flow_through_edits(kind):
    x, gate = inputs(), jnp.array([0.5, 0.0, 2.0])

    @jax.jit
    @jax.grad
    def gradient(gate):
        return edit(Model(kind).apply, {"encoder/*/mlp": gated(gate)})(variables(kind), x).sum()

    expected = jax.grad(lambda gate: by_hand(stacked(), x, gate)[0].sum())(gate)
    np.testing.assert_allclose(gradient(gate), expected, rtol=1e-4)


def test_under_vmap_over_the_edit():
    x, gates = inputs(), jnp.array([[1.0, 0.0, 1.0], [0.5, 1.0, 0.0]])
    outputs = jax.vmap(lambda gate: edit(Model("scan").apply, {"encoder/*/mlp": gated(gate)})(variables("scan"), x))(
        gates
    )
    for output, gate in zip(outputs, gates, strict=True):
        np.testing.assert_allclose(output, by_hand(stacked(), x, gate)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["unrolled", "scan"])
def test_first_arguments_are_edited(kind):
    seen = []

    def shift(value, call):
        seen.append((call.path, value.shape, len(call.args)))
        return value + 1

    model, params, x = Model(kind), variables(kind), inputs()
    output = edit(model.apply, {"head:in": shift})(params, x)
    np.testing.assert_array_equal(output, edit(model.apply, {"encoder": lambda value, call: value + 1})(params, x))
    assert seen == [("head", (2, WIDTH), 1)]


def test_first_arguments_by_name():
    class Named(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(WIDTH, name="dense")(inputs=x)

    params = Named().init(jax.random.key(0), inputs())
    output = edit(Named().apply, {"dense:in": lambda value, call: 2 * call.kwargs["inputs"]})(params, inputs())
    np.testing.assert_array_equal(output, Named().apply(params, 2 * inputs()))


def test_edits_act_in_order():
    model, params, x = Model("unrolled"), variables("unrolled"), inputs()

    def double(value, call):
        return 2 * value

    def increment(value, call):
        return value + 1

    plain = model.apply(params, x)
    np.testing.assert_array_equal(
        edit(model.apply, {"head": double, "*": increment})(params, x)[0].shape, plain[0].shape
    )
    one = edit(model.apply, {"head": double, "h*": increment})(params, x)
    np.testing.assert_array_equal(one, 2 * plain + 1)
    np.testing.assert_array_equal(edit(model.apply, {"h*": increment, "head": double})(params, x), 2 * (plain + 1))
    np.testing.assert_array_equal(edit(edit(model.apply, {"head": double}), {"head": increment})(params, x), one)


def test_a_tap_outside_sees_the_edited_value_and_one_inside_the_original():
    model, params, x = Model("scan"), variables("scan"), inputs()
    zero = {"encoder/blocks/mlp": lambda value, call: 0 * value}
    output, after = tap(edit(model.apply, zero), "encoder/blocks/mlp")(params, x)
    (same, before) = edit(tap(model.apply, "encoder/blocks/mlp"), zero)(params, x)
    np.testing.assert_array_equal(output, same)
    assert not after["encoder/blocks/mlp"].any()
    np.testing.assert_allclose(before["encoder/blocks/mlp"], by_hand(stacked(), x, (0, 0, 0))[1]["mlp"], rtol=1e-5)


@pytest.mark.parametrize("outer", [["encoder/blocks/mlp", "head"], ["head"]], ids=len)
def test_asking_for_the_layer_shows_nothing_twice_to_the_runs_around(outer):
    x = inputs()

    def apply(params):
        # The first of two calls is over when the second asks for the layer.
        return Model("scan").apply(
            params, x, method=lambda model, x: model.encoder(model.head(x) @ jnp.ones((2, WIDTH)))
        )

    f = edit(apply, {"encoder/blocks/mlp": gated((1.0, 0.0, 1.0))})
    f = edit(f, {"encoder/blocks/mlp": gated((2.0, 2.0, 2.0))})
    output, values = tap(f, outer)(variables("scan"))
    assert sorted(values) == outer
    hidden = np.asarray(values["head"]) @ np.ones((2, WIDTH))
    expected = edit(apply, {"encoder/blocks/mlp": lambda value, call: value * jnp.array([2.0, 0, 2.0])[call.layer]})
    np.testing.assert_allclose(output, expected(variables("scan")), rtol=1e-6)
    assert not np.allclose(output, hidden)


def test_asking_for_the_layer_costs_one_trace_however_deep_the_edit():
    calls = []

    def apply(params, x):
        calls.append(None)
        return Model("scan").apply(params, x)

    f = edit(edit(apply, {"head": lambda value, call: value}), {"**/mlp": gated((1.0, 0.0, 1.0))})
    jax.eval_shape(edit(f, {"head": lambda value, call: value}), variables("scan"), inputs())
    assert len(calls) == 3  # The attempt, the survey, the run.


def test_stacks_of_different_depth_at_one_path():
    class Stack(nn.Module):
        depth: int

        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, "intermediates": 0}
            stack = nn.scan(Layer, variable_axes=axes, split_rngs={"params": True}, length=self.depth)
            return stack(name="layers")(x, None)[0]

    def apply(params):
        return [Stack(depth).apply(params[depth], inputs()) for depth in (2, 3)]

    params = {depth: Stack(depth).init(jax.random.key(depth), inputs()) for depth in (2, 3)}
    f = tap(edit(apply, {"layers/dense": lambda value, call: jnp.full_like(value, call.layer)}), "layers/dense")
    _, values = f(params)
    np.testing.assert_array_equal(values["layers/dense"][:, 0, 0], [0, 1])
    np.testing.assert_array_equal(values["layers/dense#1"][:, 0, 0], [0, 1, 2])


def test_what_an_edit_is_told():
    model, params, x = Model("scan"), variables("scan"), inputs()

    def recompute(value, call):
        kernel, bias = (call.module.variables["params"][name] for name in ("kernel", "bias"))
        assert kernel.shape == (WIDTH, 5)
        assert call.path == "encoder/blocks/mlp/fc1"
        assert call.kwargs == {}
        return call.args[0] @ kernel + bias

    output = edit(model.apply, {"**/fc1": recompute})(params, x)
    np.testing.assert_allclose(output, model.apply(params, x), rtol=1e-5, atol=1e-5)


def test_layers_of_stacks_of_stacks_count_on():
    class Grid(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, "intermediates": 0}
            return nn.remat_scan(Mlp, lengths=(2, 3), variable_axes=axes)(name="mlps")(x)

    params = Grid().init(jax.random.key(0), inputs())
    f = tap(edit(Grid().apply, {"mlps": lambda value, call: jnp.full_like(value, call.layer)}), ["mlps", "mlps:in"])
    output, values = f(params, inputs())
    np.testing.assert_array_equal(values["mlps"][..., 0, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(values["mlps:in"][..., 0, 0].ravel()[1:], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(output, jnp.full_like(output, 5))


def test_the_copies_of_a_vmapped_module_are_layers():
    class Experts(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0, "intermediates": 0}
            copies = nn.vmap(Mlp, variable_axes=axes, split_rngs={"params": True}, in_axes=None, axis_size=3)
            return copies(name="expert")(x)

    params = Experts().init(jax.random.key(0), inputs())
    output = edit(Experts().apply, {"expert": lambda value, call: value * (call.layer == 2)})(params, inputs())
    plain = Experts().apply(params, inputs())
    np.testing.assert_array_equal(output, np.stack([0 * plain[0], 0 * plain[1], plain[2]]))


@pytest.mark.parametrize("kind", ["unrolled", "remat"])
def test_outside_of_stacks_there_is_no_layer(kind):
    layers = []
    edit(Model(kind).apply, {"**": lambda value, call: layers.append(call.layer) or value})(variables(kind), inputs())
    assert set(layers) == {None}
    assert len(layers) > LAYERS


class Uncarried(nn.Module):
    @nn.compact
    def __call__(self, x):
        stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return stack(name="layers")(x, None)[0]


def test_a_stack_that_does_not_carry_the_collection_can_be_edited_but_not_by_layer():
    model, x = Uncarried(), inputs()
    params = model.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        edit(model.apply, {"**/dense": lambda value, call: 2 * value})(params, x), 4 * model.apply(params, x), rtol=1e-6
    )
    with pytest.raises(
        ValueError, match=r"call.layer .* inside scan\(layers\), which does not carry .*'intermediates': 0"
    ):
        edit(model.apply, {"**/dense": lambda value, call: value * call.layer})(params, x)


def test_a_model_lifted_as_a_whole_can_be_edited():
    model, x = nn.remat(Mlp)(), inputs()
    params = model.init(jax.random.key(0), x)
    output = edit(model.apply, {"fc2": lambda value, call: -value})(params, x)
    np.testing.assert_array_equal(output, -model.apply(params, x))


def test_the_cache_of_nn_jit_cannot_hide_calls():
    cached = nn.jit(Mlp)

    class Jitted(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(WIDTH, name="dense")(cached(name="mlp")(x))

    model, x = Jitted(), inputs()
    params = model.init(jax.random.key(0), x)
    before = model.apply(params, x)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"jit\(mlp\): nn.jit caches"):
            edit(model.apply, {"**": lambda value, call: 0 * value})(params, x)
    np.testing.assert_array_equal(model.apply(params, x), before)


@pytest.mark.parametrize("kind", ["unrolled", "scan"])
def test_a_pattern_without_match_names_the_nearest_paths(kind):
    nearest = "encoder/blocks/mlp" if kind in STACKED else "encoder/block_2/mlp"
    edits = {"encoder/block_3/mlp": lambda value, call: value, "head": lambda value, call: value}
    with pytest.raises(
        NoMatchError,
        match=re.escape(
            f"1 of 2 patterns match none of {{}} paths. 'encoder/block_3/mlp': did you mean '{nearest}'"
        ).replace(r"\{\}", r"\d+"),
    ):
        edit(Model(kind).apply, edits)(variables(kind), inputs())


def test_a_jitted_apply_is_refused_and_its_cache_left_clean():
    jitted, params, x = jax.jit(Model("unrolled").apply), variables("unrolled"), inputs()
    with pytest.raises(ValueError, match="intercept first, transform then"):
        edit(jitted, {"head": lambda value, call: 0 * value})(params, x)
    assert jitted(params, x).all()

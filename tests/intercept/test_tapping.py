import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import freeze

from mmjax.intercept import edit, tap
from tests.intercept.toys import (
    KINDS,
    LAYERS,
    STACKED,
    WIDTH,
    Mlp,
    Model,
    by_hand,
    inputs,
    layer_values,
    stacked,
    variables,
)

PATTERNS = ("encoder/*/mlp:in", "encoder/**/fc1", "encoder/*/mlp", "head")


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_those_computed_by_hand(kind):
    x = inputs()
    expected, seen = by_hand(stacked(), x)
    output, values = tap(Model(kind).apply, PATTERNS)(variables(kind), x)
    for name, layers in seen.items():
        np.testing.assert_allclose(layer_values(kind, values, name), layers, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values["head"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(values["head"], output)
    assert len(values) == 3 * (1 if kind in STACKED else LAYERS) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_output_is_untouched(kind):
    model, params, x = Model(kind), variables(kind), inputs()
    output, _ = tap(model.apply, ["**", "**:in"])(params, x)
    np.testing.assert_array_equal(output, model.apply(params, x))


@pytest.mark.parametrize("kind", KINDS)
def test_under_jit_nothing_leaks_and_nothing_is_traced_twice(kind):
    traces = []

    def apply(params, x):
        traces.append(None)
        return Model(kind).apply(params, x)

    params, x = variables(kind), inputs()
    with jax.checking_leaks():
        output, values = jax.jit(tap(apply, PATTERNS))(params, x)
    traces.clear()
    jitted = jax.jit(tap(apply, PATTERNS))
    np.testing.assert_array_equal(jitted(params, x)[0], output)
    assert jitted(params, 2 * x)[1].keys() == values.keys()
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("kind", "wrap"),
    [*((kind, lambda f: f) for kind in KINDS), ("setup", jax.checkpoint), ("scan_remat", jax.checkpoint)],
    ids=lambda case: case if isinstance(case, str) else "" if case.__name__ == "<lambda>" else case.__name__,
)
def test_gradients_flow_through_the_values(kind, wrap):
    x = inputs()
    weight = np.random.default_rng(2).normal(size=(LAYERS, *x.shape)).astype(np.float32)

    @jax.jit
    @jax.grad
    def by_tap(params):
        _, values = wrap(tap(Model(kind).apply, "encoder/*/mlp"))(variables(kind, params), x)
        return (weight * layer_values(kind, values, "mlp")).sum()

    expected = jax.grad(lambda params: (weight * by_hand(params, x)[1]["mlp"]).sum())(stacked())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), by_tap(stacked()), expected)


@pytest.mark.parametrize("kind", ["remat", "scan_remat"])
def test_under_vmap(kind):
    tapped = tap(Model(kind).apply, PATTERNS)
    params, x = variables(kind), inputs()
    mapped, values = jax.vmap(tapped, in_axes=(None, 0))(params, x)
    for i, row in enumerate(x):
        output, alone = tapped(params, row)
        np.testing.assert_allclose(mapped[i], output, rtol=1e-5, atol=1e-5)
        for address, value in alone.items():
            np.testing.assert_allclose(values[address][i], value, rtol=1e-5, atol=1e-5)


def test_taps_nest():
    model, params, x = Model("scan"), variables("scan"), inputs()
    (output, inner), outer = tap(tap(model.apply, "encoder/blocks/mlp"), "encoder/**/fc1")(params, x)
    np.testing.assert_array_equal(output, model.apply(params, x))
    _, both = tap(model.apply, ["encoder/blocks/mlp", "encoder/**/fc1"])(params, x)
    assert (*inner, *outer) == ("encoder/blocks/mlp", "encoder/blocks/mlp/fc1")
    for address, value in both.items():
        np.testing.assert_array_equal({**inner, **outer}[address], value)


def test_a_closure_that_calls_parts_of_several_models():
    x = inputs()

    def apply(params):
        first = Model("scan").apply(params["scan"], x, method=lambda model, x: model.head(2 * model.encoder(x)))
        return first + Model("remat").apply(params["remat"], x)

    params = {kind: variables(kind) for kind in ("scan", "remat")}
    output, values = tap(apply, ["**/fc1", "head"])(params)
    np.testing.assert_array_equal(output, apply(params))
    assert sorted(values) == sorted(
        ["encoder/blocks/mlp/fc1", *(f"encoder/block_{i}/mlp/fc1" for i in range(LAYERS)), "head", "head#1"]
    )
    np.testing.assert_array_equal(values["head"] + values["head#1"], output)


class Twice(nn.Module):
    """One stack of layers called twice, and in each layer one module called twice."""

    def setup(self):
        axes = {"params": 0, "intermediates": 0}
        self.stack = nn.scan(nn.remat(TwiceLayer), variable_axes=axes, split_rngs={"params": True}, length=2)()

    def __call__(self, x):
        return self.stack(2 * self.stack(x, None)[0], None)[0]


class TwiceLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        dense = nn.Dense(WIDTH, use_bias=False, name="dense")
        return dense(inputs=dense(x)), None


def test_values_of_repeated_calls_are_numbered_in_their_order():
    x = inputs()
    kernels = np.random.default_rng(3).normal(size=(2, WIDTH, WIDTH)).astype(np.float32)
    _, values = tap(Twice().apply, ["**/dense", "**/dense:in"])(
        {"params": {"stack": {"dense": {"kernel": kernels}}}}, x
    )
    assert len(values) == 8
    for pair in range(2):
        for layer, kernel in enumerate(kernels):
            for call in (2 * pair, 2 * pair + 1):
                suffix = f"#{call}" if call else ""
                np.testing.assert_allclose(values[f"stack/dense:in{suffix}"][layer], x, rtol=1e-4, atol=1e-4)
                x = x @ kernel
                np.testing.assert_allclose(values[f"stack/dense{suffix}"][layer], x, rtol=1e-4, atol=1e-4)
        x = 2 * x


def test_attention_of_flax():
    model = nn.MultiHeadDotProductAttention(num_heads=2)
    x = jnp.asarray(inputs())[None]
    params = model.init(jax.random.key(0), x)
    output, values = tap(model.apply, ["{query,key}", "out", "out:in"])(params, x)
    for name in ("query", "key"):
        kernel = params["params"][name]["kernel"]
        np.testing.assert_allclose(values[name], np.einsum("btd,dnh->btnh", x, kernel), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(values["out"], output)
    assert values["out:in"].shape == (1, 2, 2, 2)


def test_other_methods_by_name():
    class Tied(nn.Module):
        def setup(self):
            self.embed = nn.Embed(3, WIDTH)

        def __call__(self, ids):
            return self.embed.attend(self.embed(ids))

    ids = jnp.array([0, 2])
    params = Tied().init(jax.random.key(0), ids)
    table = params["params"]["embed"]["embedding"]
    output, values = tap(Tied().apply, ["embed", "embed:attend", "embed:attend:in"])(params, ids)
    np.testing.assert_array_equal(values["embed"], table[ids])
    np.testing.assert_array_equal(values["embed:attend:in"], table[ids])
    np.testing.assert_array_equal(values["embed:attend"], output)
    assert list(tap(Tied().apply, "**")(params, ids)[1]) == ["embed"]


class Parent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH, name="dense")(x)


class Child(Parent):
    @nn.compact
    def __call__(self, x):
        return 2 * super().__call__(x)


class Wrapper(nn.Module):
    base: nn.Module

    def setup(self):
        nn.share_scope(self, self.base)

    def __call__(self, x):
        return 2 * self.base(x)


class Holder(nn.Module):
    wrapped: bool

    @nn.compact
    def __call__(self, x):
        module = Wrapper(Parent(name="part")) if self.wrapped else Child(name="part")
        return 1 + module(x)


@pytest.mark.parametrize("wrapped", [False, True], ids=["super", "shared scope"])
def test_a_call_within_the_call_of_the_same_place_is_part_of_it(wrapped):
    model, x = Holder(wrapped), inputs()
    params = model.init(jax.random.key(0), x)
    output, values = tap(model.apply, "**")(params, x)
    assert sorted(values) == ["part", "part/dense"]
    np.testing.assert_array_equal(values["part"], 2 * values["part/dense"])
    np.testing.assert_array_equal(output, 1 + values["part"])


class Stateful(nn.Module):
    """Sows, drops out, and keeps batch statistics, in scanned layers."""

    @nn.compact
    def __call__(self, x, _=None, *, layers=2):
        axes = {"params": 0, "batch_stats": 0, "intermediates": 0}
        split = {"params": True, "dropout": True}
        return nn.scan(StatefulLayer, variable_axes=axes, split_rngs=split, length=layers)(name="layers")(x, None)[0]


class StatefulLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = nn.BatchNorm(use_running_average=False, name="norm")(Mlp(name="mlp")(x))
        self.sow("intermediates", "own", x)
        return nn.Dropout(0.5, deterministic=False, name="drop")(x), None


@pytest.mark.parametrize("mutable", [["batch_stats"], ["batch_stats", "intermediates"], True], ids=str)
def test_state_and_randomness_are_untouched(mutable):
    model, x = Stateful(), inputs()
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    initial = model.init(rngs, x)
    expected = model.apply(initial, x, rngs=rngs, mutable=mutable)
    tapped, values = tap(model.apply, ["layers/mlp", "layers/drop"])(initial, x, rngs=rngs, mutable=mutable)
    assert values["layers/mlp"].shape == (2, *x.shape)
    jax.tree.map(np.testing.assert_array_equal, tapped, expected)
    np.testing.assert_array_equal(values["layers/drop"][-1], tapped[0])


@pytest.mark.parametrize("mutable", [["intermediates"], True], ids=str)
def test_a_state_without_intermediates_gets_none(mutable):
    model, params, x = Model("scan_remat"), variables("scan_remat"), inputs()
    _, expected = model.apply(params, x, mutable=mutable)
    f = edit(model.apply, {"**/mlp": lambda value, call: value * (call.layer > 0)})
    (_, state), _ = tap(f, "**/mlp")(params, x, mutable=mutable)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert state.keys() == expected.keys()


def test_initialisation_is_untouched_and_can_be_tapped():
    model, x = Model("scan_remat"), inputs()
    expected = model.init(jax.random.key(0), x)
    (output, initial), values = tap(model.init_with_output, "encoder/blocks/mlp")(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, initial, expected)
    np.testing.assert_array_equal(values["encoder/blocks/mlp"][0], Mlp().apply(first_mlp(initial), x))
    np.testing.assert_array_equal(output, model.apply(initial, x))


def first_mlp(initial):
    return {"params": jax.tree.map(lambda leaf: leaf[0], initial["params"]["encoder"]["blocks"]["mlp"])}


def test_variables_that_hold_intermediates_already_are_left_alone():
    model, x = Model("scan"), inputs()
    before = freeze({"encoder": {"blocks": {"old": jnp.zeros(LAYERS)}}})
    bound = model.bind({**variables("scan"), "intermediates": before})
    output, values = tap(lambda x: bound(x), "encoder/blocks/mlp")(x)
    np.testing.assert_array_equal(output, model.apply(variables("scan"), x))
    assert list(values) == ["encoder/blocks/mlp"]
    assert bound.variables["intermediates"] is before


class Sower(nn.Module):
    def setup(self):
        self.inner = nn.remat(SowingLayer)()
        self.outer = SowingLayer()

    def __call__(self, x):
        return self.outer(self.inner(x))


class SowingLayer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(WIDTH, name="dense")(x)
        self.sow("intermediates", "own", x)
        return x


def test_a_bound_module_can_be_tapped_and_is_left_as_it_was():
    x = jnp.asarray(inputs())
    params = Sower().init(jax.random.key(0), x)
    bound = Sower().bind(params)
    with jax.checking_leaks():
        _, values = jax.jit(tap(lambda x: bound(x), "**/dense"))(x)
    assert list(bound.variables) == ["params"]
    again = tap(lambda x: bound(x), "**/dense")(x)
    np.testing.assert_array_equal(again[0], bound(x))
    for address, value in again[1].items():
        np.testing.assert_allclose(values[address], value, rtol=1e-5, atol=1e-6)


def test_a_tower_given_as_a_field_may_be_lifted():
    class Dual(nn.Module):
        image: nn.Module

        def __call__(self, x):
            return self.image(x)

    model, x = Dual(nn.remat(Mlp)()), inputs()
    params = model.init(jax.random.key(0), x)
    output, values = tap(model.apply, "image")(params, x)
    np.testing.assert_array_equal(values["image"], output)

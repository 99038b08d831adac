import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from mmjax.intercept import match_report, module_paths, tap
from mmjax.paths import NoMatchError
from tests.intercept.toys import HIDDEN, KINDS, LAYERS, STACKED, WIDTH, Model, inputs, variables


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.mark.parametrize("kind", KINDS)
def test_modules_are_those_that_tap_finds(kind):
    model, params, x = Model(kind), variables(kind), inputs()
    modules = module_paths(model.apply, abstract(params), abstract(x))
    _, values = tap(model.apply, "**")(params, x)
    assert modules.keys() == values.keys()
    for path, info in modules.items():
        tapped = jax.tree.map(lambda value: (value.shape, value.dtype), values[path])
        assert tapped == jax.tree.map(lambda leaf, info=info: ((*info.stack, *leaf.shape), leaf.dtype), info.output)
    layer = "blocks" if kind in STACKED else "block_0"
    fc1 = modules[f"encoder/{layer}/mlp/fc1"]
    assert fc1 == ("Dense", jax.ShapeDtypeStruct((2, HIDDEN), jnp.float32), (LAYERS,) if kind in STACKED else ())


def test_arguments_that_are_no_arrays_pass_as_they_are():
    def apply(params, x, *, part, scale):
        return Model("unrolled").apply(params, x, method=lambda model, x: getattr(model, part)(scale * x))

    modules = module_paths(apply, variables("unrolled"), inputs(), part="encoder", scale=2.0)
    assert "encoder" in modules
    assert "head" not in modules


def test_a_stack_out_of_reach_is_marked():
    class Uncarried(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes = {"params": 0}
            cell = nn.scan(nn.SimpleCell, variable_axes=axes, split_rngs={"params": True})(WIDTH, name="cell")
            return nn.Dense(1, name="dense")(cell(x, jnp.stack([x, x]))[1])

    params = jax.eval_shape(Uncarried().init, jax.random.key(0), inputs())
    modules = module_paths(Uncarried().apply, params, inputs())
    assert {path: info.stack for path, info in modules.items()} == {
        "cell": None,
        "cell/i": None,
        "cell/h": None,
        "dense": (),
    }


@pytest.mark.parametrize(("kind", "modules"), [("unrolled", 4 * LAYERS + 2), ("scan_remat", 4 + 2)])
def test_report_counts_add_up(kind, modules):
    patterns = ["encoder", "encoder/*", "encoder/*/mlp", "encoder/*/mlp/*", "head"]
    report = match_report(Model(kind).apply, patterns, abstract(variables(kind)), inputs())
    assert sum(report.counts.values()) == report.total == len(report.matched) == modules
    assert report.counts["encoder/*/mlp/*"] == 2 * report.counts["encoder/*/mlp"]
    inputs_too = match_report(Model(kind).apply, ["**", "**:in"], variables(kind), inputs())
    assert inputs_too.counts == {"**": modules, "**:in": modules}
    assert inputs_too.total == len(inputs_too.matched) == 2 * modules


def test_report_is_in_addresses_and_a_pattern_without_match_raises():
    model, params, x = Model("scan"), variables("scan"), inputs()
    report = match_report(model.apply, "**/fc{1,2}:in", params, x)
    assert report.matches == {"**/fc{1,2}:in": ("encoder/blocks/mlp/fc1:in", "encoder/blocks/mlp/fc2:in")}
    with pytest.raises(NoMatchError, match="'encoder/block_3/mlp': did you mean 'encoder/blocks/mlp'"):
        match_report(model.apply, ["encoder/block_3/mlp:in", "head"], params, x)
    with pytest.raises(NoMatchError, match="none of 0 paths"):
        match_report(model.apply, "head:encode", params, x)


def test_nothing_is_computed_for_the_runs_around():
    def apply(params, x):
        assert module_paths(Model("scan").apply, params, x)
        return Model("scan").apply(params, x)

    _, values = tap(apply, "head")(variables("scan"), inputs())
    assert list(values) == ["head"]

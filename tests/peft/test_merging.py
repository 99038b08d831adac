import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import peft
from tests.peft.towers import perturbed, variables

MODEL = nn.Sequential([nn.Dense(3), nn.Dense(3)])
X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
PARAMS = variables(MODEL, X)


def trained(adapter, *, seed=1):
    return perturbed(adapter.init(jax.random.key(0), MODEL.apply, PARAMS, X), seed=seed)


def test_the_report_names_what_changed_and_by_how_much():
    adapter = peft.lora("layers_1", rank=1, alpha=3.0)
    tree = {"layers_1": {"a": jnp.array([[1.0], [0.0], [2.0]]), "b": jnp.array([[0.5, 0.0, -1.0]])}}
    merged, report = peft.merge(adapter, PARAMS, tree)
    assert report.touched == ("layers_1/kernel",)
    assert report.largest_change == pytest.approx(6.0, rel=1e-6)
    assert (report.total, report.non_finite) == (4, ())
    assert str(report) == "1 of 4 leaves changed, by at most 6"
    assert merged["params"]["layers_0"]["kernel"] is PARAMS["params"]["layers_0"]["kernel"]


def test_what_is_not_finite_stands_in_the_report():
    tree = {"layers_0": {"bias": jnp.array([1.0, jnp.inf, jnp.nan])}}
    _, report = peft.merge(peft.bitfit(), PARAMS, tree)
    assert report.non_finite == ("layers_0/bias",)
    assert "1 leaves ARE NOT FINITE: layers_0/bias" in str(report)


def test_bare_parameters_stay_bare():
    adapter = peft.lora("layers_*", rank=2)
    merged, _ = peft.merge(adapter, PARAMS["params"], trained(adapter))
    assert list(merged) == ["layers_0", "layers_1"]


def test_a_merge_that_changes_nothing_is_refused():
    adapter = peft.lora("layers_*", rank=2)
    start = adapter.init(jax.random.key(0), MODEL.apply, PARAMS, X)
    with pytest.raises(peft.NothingChangedError, match="lora: merge changes none of 4 leaves"):
        peft.merge(adapter, PARAMS, start)
    merged, report = peft.merge(adapter, PARAMS, start, allow_unchanged=True)
    assert report.changes == {}
    jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)


def test_an_update_that_bfloat16_swallows_is_refused():
    half = jax.tree.map(lambda leaf: jnp.ones_like(leaf, jnp.bfloat16), PARAMS)
    adapter = peft.lora("layers_0", rank=1, alpha=1.0)
    tree = {"layers_0": {"a": jnp.full((3, 1), 1e-2), "b": jnp.full((1, 3), 1e-2)}}
    with pytest.raises(peft.NothingChangedError, match="lost in the dtype of the model"):
        peft.merge(adapter, half, tree)


@pytest.mark.parametrize(
    "adapter", [peft.lora("layers_*", rank=2), peft.ia3("layers_0", "layers_1")], ids=["lora", "ia3"]
)
def test_unmerging_restores_the_model_up_to_rounding(adapter):
    merged, _ = peft.merge(adapter, PARAMS, trained(adapter))
    restored, report = peft.unmerge(adapter, merged, trained(adapter))
    assert len(report.touched) >= 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), restored, PARAMS)


@pytest.mark.parametrize(
    "adapter", [peft.lora("layers_*", dora=True), peft.bitfit(), peft.bottleneck()], ids=lambda a: a.name
)
def test_what_cannot_be_unmerged_says_so(adapter):
    with pytest.raises(peft.NoMergeError, match=f"^{adapter.name}: "):
        peft.unmerge(adapter, PARAMS, {})


def test_combined_loras_add_up_exactly():
    adapter = peft.lora("layers_*", rank=2)
    trees = {"one": trained(adapter), "two": {"layers_1": trained(adapter, seed=2)["layers_1"]}}
    combined = peft.combine(trees, {"one": 0.5, "two": -2.0})
    assert combined["layers_1"]["a"].shape == (3, 4)
    assert combined["layers_0"]["a"].shape == (3, 2)
    deltas = {name: jax.tree.map(jnp.subtract, adapter.merge(PARAMS, tree), PARAMS) for name, tree in trees.items()}
    expected = jax.tree.map(lambda p, a, b: p + 0.5 * a - 2.0 * b, PARAMS, deltas["one"], deltas["two"])
    found = adapter.merge(PARAMS, combined)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    np.testing.assert_allclose(
        adapter.wrap(MODEL.apply)(PARAMS, combined, X), MODEL.apply(expected, X), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "adapter", [peft.lora("layers_*", rank=2, dora=True), peft.ia3("layers_*", ())], ids=["dora", "ia3"]
)
def test_what_does_not_add_up_is_refused(adapter):
    with pytest.raises(ValueError, match=r"combine: 'one' has 'layers_0/.*', expected pairs"):
        peft.combine({"one": trained(adapter)}, {"one": 1.0})


def test_weights_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"trees are \['one'\], weights \['two'\]"):
        peft.combine({"one": {}}, {"two": 1.0})


def test_one_program_switches_between_adapters():
    adapter = peft.lora("layers_*", rank=2)
    trees = {"one": trained(adapter), "two": trained(adapter, seed=2)}
    f = jax.jit(lambda index: adapter.wrap(MODEL.apply)(PARAMS, peft.switch(trees, index), X))
    for index, tree in enumerate(trees.values()):
        np.testing.assert_allclose(f(index), adapter.wrap(MODEL.apply)(PARAMS, tree, X), rtol=1e-5)
    assert f._cache_size() == 1

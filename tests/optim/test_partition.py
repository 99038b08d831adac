import jax
import jax.numpy as jnp
import pytest

from mmjax.optim import Partition, Rule, partition_params
from mmjax.paths import NoMatchError, flatten


def tree(leaf=lambda *shape: jnp.ones(shape)):
    return {
        "image": {"proj": {"kernel": leaf(4, 2)}, "ln": {"scale": leaf(4), "bias": leaf(4)}},
        "text": {"proj": {"kernel": leaf(3, 2)}},
        "log_scale": leaf(),
    }


RULES = [("image/ln/bias", {}), ("image/**", {"frozen": True}), ("**", {"rate": 0.5})]


def test_first_match_claims_a_leaf():
    partition = partition_params(tree(), RULES)
    claims = {leaf.path: leaf.rule for leaf in partition.leaves}
    assert claims == {
        "image/proj/kernel": 1,
        "image/ln/scale": 1,
        "image/ln/bias": 0,
        "text/proj/kernel": 2,
        "log_scale": 2,
    }
    assert [leaf.path for leaf in partition.frozen] == ["image/proj/kernel", "image/ln/scale"]


def test_split_leaves_absent_what_is_not_theirs():
    trainable, frozen = partition_params(tree(), RULES).split(tree())
    assert jax.tree.map(jnp.shape, trainable) == {
        "image": {"ln": {"bias": (4,)}},
        "text": {"proj": {"kernel": (3, 2)}},
        "log_scale": (),
    }
    assert jax.tree.map(jnp.shape, frozen) == {"image": {"proj": {"kernel": (4, 2)}, "ln": {"scale": (4,)}}}


def test_join_inverts_split_leaf_by_leaf():
    params = tree()
    partition = partition_params(params, RULES)
    joined = partition.join(*partition.split(params))
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    assert list(flatten(joined)) == list(flatten(params))
    assert all(a is b for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(params), strict=True))


def test_shapes_do_as_well_as_arrays():
    shapes = tree(lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32))
    assert partition_params(shapes, RULES) == partition_params(tree(), RULES)


def test_is_static_under_jit_and_join_differentiates_one_part():
    partition = partition_params(tree(), RULES)

    def gradient(partition: Partition, params):
        trainable, frozen = partition.split(params)
        return jax.grad(lambda t: sum(jnp.sum(x**2) for x in jax.tree.leaves(partition.join(t, frozen))))(trainable)

    found = jax.jit(gradient, static_argnums=0)(partition, tree())
    assert jax.tree.map(lambda x: x.shape, found) == jax.tree.map(lambda x: x.shape, partition.split(tree())[0])
    assert all(jnp.all(leaf == 2.0) for leaf in jax.tree.leaves(found))


def test_a_method_and_a_rule_must_agree_that_a_leaf_trains():
    trains = [["**/kernel", False], ["**", True]]
    partition = partition_params(tree(), [("text/**", {"rate": 2.0}), ("**", {})], trains=trains)
    assert [leaf.path for leaf in partition.trainable] == ["image/ln/scale", "image/ln/bias", "log_scale"]


def test_report_counts_leaves_and_parameters():
    report = str(partition_params(tree(), RULES)).splitlines()
    assert [line.split() for line in report] == [
        ["leaves", "trainable", "frozen", "rule"],
        ["1", "4", "0", "image/ln/bias"],
        ["2", "0", "12", "image/**", "frozen=True"],
        ["2", "7", "0", "**", "rate=0.5"],
        ["5", "11", "12", "(total)"],
    ]


def test_a_pattern_without_match_names_the_nearest_path():
    with pytest.raises(NoMatchError, match=r"'image/prj/kernel': did you mean 'image/proj/kernel'"):
        partition_params(tree(), [("image/prj/kernel", {}), ("**", {})])


def test_a_shadowed_rule_names_what_shadows_it():
    with pytest.raises(ValueError, match=r"rules\[1\] 'image/ln/\*' claims nothing.*'image/\*\*'.* all 2 leaves"):
        partition_params(tree(), [("image/**", {}), ("image/ln/*", {"frozen": True}), ("**", {})])


def test_unclaimed_leaves_are_listed():
    with pytest.raises(ValueError, match="claim 3 of 5 leaves, but not text/proj/kernel, log_scale"):
        partition_params(tree(), [("image/**", {})])


def test_a_long_list_of_unclaimed_leaves_is_cut():
    params = {"head": jnp.ones(1)} | {f"w{i}": jnp.ones(1) for i in range(10)}
    with pytest.raises(ValueError, match="w7 and 2 more"):
        partition_params(params, [("head", {})])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("**", {"frozen": True})], "nothing trains, all 5 leaves are frozen"),
        ([("**", {"frozzen": True})], "'frozzen'; did you mean 'frozen'"),
        ([("**", {"frozen": True, "rate": 0.1})], "its rate and weight decay say nothing"),
        ([("**", {"rate": 0.0})], "rate above 0; to stop training use frozen=True"),
        ([("**", {"rate": float("nan")})], "finite rate above 0"),
        (["**"], r"a rule is a pair \(pattern, \{setting: value\}\), found '\*\*'"),
        ([("**", {}), ("**", {})], r"rules\[1\] '\*\*' claims nothing"),
    ],
)
def test_impossible_rules(rules, message):
    with pytest.raises(ValueError, match=message):
        partition_params(tree(), rules)


def test_another_tree_is_refused():
    partition = partition_params(tree(), [Rule("image/**", frozen=True), Rule("**")])
    other = tree() | {"bias": jnp.ones(())}
    del other["log_scale"]
    with pytest.raises(ValueError, match=r"split: params .* lacks log_scale; it has besides bias"):
        partition.split(other)
    trainable, frozen = partition.split(tree())
    with pytest.raises(ValueError, match=r"join: trainable .* lacks log_scale"):
        partition.join({"text": trainable["text"]}, frozen)
    with pytest.raises(ValueError, match=r"join: frozen .* has besides text/proj/kernel"):
        partition.join(trainable, frozen | {"text": trainable["text"]})

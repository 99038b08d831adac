import jax.numpy as jnp
import pytest

from mmjax.optim import Rule, frozen_rules, lock_tower, partition_params
from mmjax.paths import flatten


def image_tower(num_layers=2, scan=False):
    block = {"attn": {"query": {"kernel": 0}}, "ln_1": {"bias": 0}}
    blocks = {"blocks": block} if scan else {f"block_{i}": block for i in range(num_layers)}
    return {
        "patch_embed": {"kernel": 0},
        "class_embedding": 0,
        "register_embedding": 0,
        "position_embedding": 0,
        "ln_pre": {"scale": 0},
        "encoder": blocks,
        "ln_post": {"scale": 0},
        "attn_pool": {"probe": 0},
        "proj": {"kernel": 0},
    }


STEM = {"patch_embed", "class_embedding", "register_embedding", "position_embedding", "ln_pre"}
GROUPS = [STEM, {"block_0"}, {"block_1", "ln_post"}, {"attn_pool", "proj"}]


@pytest.mark.parametrize("unlocked", range(5))
def test_groups_unlock_from_the_output(unlocked):
    trains = flatten(lock_tower(image_tower(), num_layers=2, unlocked_groups=unlocked))
    names = {path.removeprefix("encoder/").split("/")[0] for path, value in trains.items() if value}
    assert names == set().union(*GROUPS[len(GROUPS) - unlocked :])


def test_text_tower():
    tower = {
        "token_embedding": {"embedding": 0},
        "position_embedding": 0,
        "encoder": {"block_0": {"w": 0}},
        "ln_final": {"scale": 0},
        "proj": {"kernel": 0},
    }
    assert lock_tower(tower, num_layers=1, unlocked_groups=2) == {
        "token_embedding": {"embedding": False},
        "position_embedding": False,
        "encoder": {"block_0": {"w": True}},
        "ln_final": {"scale": True},
        "proj": {"kernel": True},
    }


@pytest.mark.parametrize(("unlocked", "trains"), [(0, False), (1, False), (3, True), (4, True)])
def test_scanned_blocks_are_locked_together(unlocked, trains):
    tower = lock_tower(image_tower(scan=True), num_layers=2, unlocked_groups=unlocked)
    assert set(flatten(tower["encoder"]).values()) == {trains}


def test_errors():
    with pytest.raises(ValueError, match="num_layers is 12, but the tower has 2 blocks"):
        lock_tower(image_tower(), num_layers=12)
    with pytest.raises(ValueError, match="unlocked_groups is 5, expected 0 to 4"):
        lock_tower(image_tower(), num_layers=2, unlocked_groups=5)
    with pytest.raises(ValueError, match="unlocked_groups=2 cuts them; unlock at most 1 or at least 3"):
        lock_tower(image_tower(scan=True), num_layers=2, unlocked_groups=2)
    with pytest.raises(ValueError, match="'head/w' is no parameter of a tower, expected one of patch_embed"):
        lock_tower(image_tower() | {"head": {"w": 0}}, num_layers=2)


def test_a_locked_tower_is_one_rule():
    assert frozen_rules(lock_tower(image_tower(), num_layers=2), prefix="image") == (Rule("image/**", frozen=True),)


@pytest.mark.parametrize("unlocked", range(1, 4))
def test_rules_freeze_what_the_tree_says(unlocked):
    tower = {path: jnp.zeros(1) for path in flatten(image_tower())}
    trains = lock_tower(image_tower(), num_layers=2, unlocked_groups=unlocked)
    params = {"image": image_tower(), "log_scale": 0}
    params = _arrays(params)
    rules = [*frozen_rules(trains, prefix="image"), Rule("**")]
    partition = partition_params(params, rules)
    found = {leaf.path: leaf.trains for leaf in partition.leaves}
    assert found == {f"image/{path}": value for path, value in flatten(trains).items()} | {"log_scale": True}
    assert len(rules) < len(tower)


def test_nothing_to_freeze_gives_no_rule():
    assert frozen_rules(lock_tower(image_tower(), num_layers=2, unlocked_groups=4), prefix="image") == ()


def _arrays(tree):
    return {k: _arrays(v) if isinstance(v, dict) else jnp.zeros(1) for k, v in tree.items()}

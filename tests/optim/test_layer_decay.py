import pytest

from mmjax.optim import layer_rates

PATHS = [
    "image/patch_embed/kernel",
    "image/encoder/block_0/ln_1/scale",
    "image/encoder/block_1/ln_1/scale",
    "image/ln_post/scale",
    "image/proj/kernel",
    "text/token_embedding/embedding",
    "text/encoder/block_0/ln_1/scale",
    "text/classifier/kernel",
    "log_scale",
]


def test_each_tower_counts_its_own_layers():
    assert list(layer_rates(PATHS, decay=0.5).values()) == [0.125, 0.25, 0.5, 1.0, 1.0, 0.25, 0.5, 1.0, 1.0]


def test_a_tower_may_be_the_whole_tree():
    own = [path.removeprefix("image/") for path in PATHS[:5]]
    assert list(layer_rates(own, decay=0.1).values()) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0, 1.0])


def test_a_decay_of_one_changes_nothing():
    assert set(layer_rates(PATHS, decay=1.0).values()) == {1.0}


@pytest.mark.parametrize("decay", [0.0, 1.5, float("nan")])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        layer_rates(PATHS, decay=decay)


def test_scanned_layers_have_one_rate():
    with pytest.raises(ValueError, match="scan=False"):
        layer_rates(["image/encoder/blocks/ln_1/scale"], decay=0.5)

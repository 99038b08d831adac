"""What holds for every adapter: the same on all forms of layers, merged as wrapped, unchanged at the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import peft
from tests.peft.towers import IDS, IMAGES, LAYERS, MASK, image_tower, in_form, perturbed, text_tower, variables

MATRICES = ["**/block*/attn/{query,out}", "**/block*/mlp/fc1", "patch_embed"]
ADAPTERS = {
    "lora": peft.lora(MATRICES, rank=2),
    "dora": peft.lora(MATRICES, rank=2, dora=True),
    "ia3": peft.ia3(),
    "houlsby": peft.bottleneck(3, placement="houlsby", scale="learnable", layer_norm="in"),
    "parallel": peft.bottleneck(3, placement="parallel"),
    "experts": peft.experts(3, 2, top_k=2),
    "vpt": peft.vpt(2, depth=LAYERS - 1),
    "vpt_deep": peft.vpt(2),
    "prefix_tuning": peft.prefix_tuning(2, encoder_hidden=3),
    "bitfit": peft.bitfit(),
    "chain": peft.chain(peft.bitfit(), peft.lora(rank=2), peft.ia3()),
}
SAME_AT_START = sorted(ADAPTERS.keys() - {"vpt", "vpt_deep", "prefix_tuning"})
MERGED = ["lora", "dora", "ia3", "bitfit", "chain"]
PARAMS = variables(image_tower(), IMAGES)


def outputs(model, params, adapter=None, tree=None):
    apply = model.apply if adapter is None else lambda params, images: adapter.wrap(model.apply)(params, tree, images)
    embeds, found = apply(params, IMAGES)
    return {"embeds": embeds, **found}


def assert_close(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


@pytest.fixture(scope="module")
def plain():
    return outputs(image_tower(), PARAMS)


@pytest.fixture(scope="module")
def started():
    """The parameters that each adapter starts from."""
    start = {}

    def of(name):
        if name not in start:
            start[name] = ADAPTERS[name].init(jax.random.key(2), image_tower().apply, PARAMS, IMAGES)
        return start[name]

    return of


@pytest.fixture(scope="module")
def wrapped(started):
    """The parameters of each adapter after some training, and what they do to the unrolled tower."""
    results = {}

    def of(name):
        if name not in results:
            tree = perturbed(started(name), seed=3)
            results[name] = tree, outputs(image_tower(), PARAMS, ADAPTERS[name], tree)
        return results[name]

    return of


@pytest.mark.parametrize("name", SAME_AT_START)
def test_the_model_is_unchanged_at_the_start(name, started, plain):
    assert_close(outputs(image_tower(), PARAMS, ADAPTERS[name], started(name)), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
def test_training_changes_it_and_keeps_the_shapes_of_all_results(name, wrapped, plain):
    _, found = wrapped(name)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, plain)
    assert np.abs(found["embeds"] - plain["embeds"]).max() > 1e-3


@pytest.mark.parametrize("name", ADAPTERS)
def test_scanned_and_rematerialised_layers_do_the_same(name, wrapped):
    tree, expected = wrapped(name)
    found = outputs(image_tower("scan_remat"), in_form("scan", PARAMS), ADAPTERS[name], in_form("scan", tree))
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MERGED)
def test_merged_parameters_do_what_the_adapter_does(name, wrapped):
    tree, expected = wrapped(name)
    merged = ADAPTERS[name].merge(PARAMS, tree)
    assert_close(outputs(image_tower(), merged), expected, rtol=1e-4, atol=1e-5)
    scanned = ADAPTERS[name].merge(in_form("scan", PARAMS), in_form("scan", tree))
    assert_close(scanned, in_form("scan", merged), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(ADAPTERS.keys() - set(MERGED)))
def test_what_has_no_merge_says_so_by_name(name):
    with pytest.raises(peft.NoMergeError, match=f"^{ADAPTERS[name].name}: .*keep the adapter"):
        ADAPTERS[name].merge(PARAMS, {})


@pytest.mark.parametrize("name", ["lora", "ia3", "bitfit", "vpt", "chain", "parallel"])
def test_a_scanned_tower_starts_with_the_same_leaves(name, started):
    init = ADAPTERS[name].init
    shapes = jax.eval_shape(
        lambda params: init(jax.random.key(2), image_tower("scan").apply, params, IMAGES), in_form("scan", PARAMS)
    )
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, in_form("scan", started(name)))


@pytest.mark.parametrize("kind", ["unrolled", "scan_remat"])
def test_gradients_of_all_forms_agree(kind, wrapped):
    """With respect to the adapter, through rematerialised and scanned layers."""
    tree, _ = wrapped("lora")

    def loss(kind, tree):
        found = ADAPTERS["lora"].wrap(image_tower(kind).apply)(in_form(kind, PARAMS), in_form(kind, tree), IMAGES)
        return jnp.sum(found[0] ** 2)

    found = jax.jit(jax.grad(loss, argnums=1), static_argnums=0)(kind, tree)
    merged = jax.grad(lambda tree: jnp.sum(image_tower().apply(ADAPTERS["lora"].merge(PARAMS, tree), IMAGES)[0] ** 2))
    assert_close(found, merged(tree), rtol=2e-3, atol=1e-4)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("tower", [{}, {"causal": False, "norm_position": "post", "pool": "mean"}], ids=["pre", "post"])
def test_a_prefix_in_masked_text_towers(tower):
    """Padding changes nothing, and scanned layers do the same."""
    adapter, model = peft.prefix_tuning(2), text_tower(**tower)
    params = variables(model, IDS)
    tree = perturbed(adapter.init(jax.random.key(0), model.apply, params, IDS), seed=3)
    found = adapter.wrap(model.apply)(params, tree, IDS, MASK)[0]
    scanned = adapter.wrap(text_tower("scan", **tower).apply)
    np.testing.assert_allclose(
        scanned(in_form("scan", params), in_form("scan", tree), IDS, MASK)[0], found, rtol=1e-4, atol=1e-5
    )
    other = np.where(MASK, IDS, 4)
    np.testing.assert_allclose(adapter.wrap(model.apply)(params, tree, other, MASK)[0], found, rtol=1e-4, atol=1e-5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import peft
from mmjax.paths import flatten
from tests.peft.towers import IDS, IMAGES, dual_encoder, image_tower, perturbed, text_tower, variables

MODEL = nn.Sequential([nn.Dense(3)])
X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


@pytest.mark.parametrize("order", [("lora", "ia3"), ("ia3", "lora"), ("ia3", "inputs"), ("bitfit", "inputs")])
def test_order_is_that_of_merging(order):
    """(W + a b) scaled is not W scaled + a b: wrapped as merged, in either order."""
    parts = {
        "lora": peft.lora("layers_0", rank=2),
        "ia3": peft.ia3("layers_0", ()),
        "inputs": peft.ia3((), "layers_0"),
        "bitfit": peft.bitfit(),
    }
    adapter, params = peft.chain(*(parts[name] for name in order)), variables(MODEL, X)
    tree = perturbed(adapter.init(jax.random.key(0), MODEL.apply, params, X), seed=1)
    assert list(tree) == [f"{i}_{name}" for i, name in enumerate(a.name for a in map(parts.get, order))]
    found = adapter.wrap(MODEL.apply)(params, tree, X)
    np.testing.assert_allclose(found, MODEL.apply(adapter.merge(params, tree), X), rtol=1e-5, atol=1e-6)
    if set(order) == {"lora", "ia3"}:
        other = peft.chain(*(parts[name] for name in reversed(order)))
        swapped = {f"{1 - int(key[0])}{key[1:]}": own for key, own in tree.items()}
        assert np.abs(other.wrap(MODEL.apply)(params, swapped, X) - found).max() > 0.01
    restored = adapter.unmerge(adapter.merge(params, tree), tree) if "bitfit" not in order else params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), restored, params)


def test_a_chain_of_what_acts_before_leaves_of_the_model_is_refused():
    with pytest.raises(ValueError, match="chain: bitfit is about leaves of the model, and comes before lora"):
        peft.chain(peft.lora(), peft.bitfit())


def test_a_chain_with_one_that_does_not_merge_names_it():
    adapter = peft.chain(peft.lora(), peft.bottleneck(2))
    params = variables(image_tower(), IMAGES)
    with pytest.raises(peft.NoMergeError, match=r"^bottleneck: "):
        adapter.merge(params, adapter.init(jax.random.key(0), image_tower().apply, params, IMAGES))


def test_parameters_of_another_chain_are_refused():
    with pytest.raises(ValueError, match=r"chain: the adapter has parameters for '0_ia3/x'; did you mean|there are"):
        peft.chain(peft.lora()).wrap(MODEL.apply)({}, {"0_ia3": {"x": 1}}, X)


class TestPerTower:
    MODEL = dual_encoder()
    PARAMS = variables(MODEL, IMAGES, IDS)

    def test_each_tower_is_adapted_as_if_alone(self):
        towers = {"image": peft.vpt(2), "text": peft.chain(peft.lora(rank=2), peft.ia3())}
        adapter = peft.per_tower(towers)
        tree = perturbed(adapter.init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES, IDS), seed=1)
        output, _ = adapter.wrap(self.MODEL.apply)(self.PARAMS, tree, IMAGES, IDS)
        for name, tower, x in (("image", image_tower(), IMAGES), ("text", text_tower(), IDS)):
            alone = towers[name].wrap(tower.apply)({"params": self.PARAMS["params"][name]}, tree[name], x)[0]
            np.testing.assert_allclose(getattr(output, f"{name}_embeds"), alone, rtol=1e-5, atol=1e-6)

    def test_one_tower_alone_can_be_called(self):
        adapter = peft.per_tower({"image": peft.lora(rank=2), "text": peft.frozen()})
        tree = perturbed(adapter.init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES, IDS), seed=1)
        assert list(tree) == ["image"]
        f = adapter.wrap(self.MODEL.apply)
        output, _ = f(self.PARAMS, tree, token_ids=IDS)
        np.testing.assert_array_equal(output.text_embeds, self.MODEL.apply(self.PARAMS, token_ids=IDS)[0].text_embeds)
        np.testing.assert_array_equal(
            f(self.PARAMS, tree, IMAGES)[0].image_embeds, f(self.PARAMS, tree, IMAGES, IDS)[0].image_embeds
        )

    def test_merging_leaves_other_towers_alone(self):
        adapter = peft.per_tower({"image": peft.lora(rank=2), "text": peft.full()})
        tree = perturbed(adapter.init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES, IDS), seed=1)
        merged = adapter.merge(self.PARAMS, tree)
        wrapped, _ = adapter.wrap(self.MODEL.apply)(self.PARAMS, tree, IMAGES, IDS)
        found, _ = self.MODEL.apply(merged, IMAGES, IDS)
        np.testing.assert_allclose(found.image_embeds, wrapped.image_embeds, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.text_embeds, wrapped.text_embeds, rtol=1e-5)
        before, after = flatten(self.PARAMS["params"]), flatten(merged["params"])
        same = [path for path, leaf in after.items() if leaf is before[path]]
        assert "log_scale" in same
        assert not [path for path in same if path.startswith("text")]
        assert len([path for path in after if path.startswith("image") and path not in same]) == 4

    @pytest.mark.parametrize(
        ("towers", "message"),
        [
            ({"vision": peft.lora()}, "per_tower: the model has no 'vision': "),
            ({"log_scale": peft.full()}, "per_tower: 'log_scale' is a parameter and no tower"),
            ({"image": peft.frozen(), "text": peft.frozen()}, r"nothing trains \(image: frozen, text: frozen\)"),
            ({"text": peft.vpt(2, depth=9)}, "depth 9, expected 1 or more, and 1 to 2, the blocks of 'encoder'"),
        ],
        ids=["unknown", "parameter", "empty", "depth"],
    )
    def test_what_cannot_be_is_refused(self, towers, message):
        with pytest.raises(ValueError, match=message):
            peft.per_tower(towers).init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES, IDS)

    def test_parameters_of_another_tower_are_refused(self):
        adapter = peft.per_tower({"image": peft.lora()})
        with pytest.raises(ValueError, match="per_tower: the adapter has parameters for 'text/x'; "):
            adapter.wrap(self.MODEL.apply)(self.PARAMS, {"text": {"x": jnp.ones(())}}, IMAGES)

"""Any method on an adapted model, in the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import peft
from mmjax.config import ConfigError, Section
from mmjax.methods.clip import clip
from mmjax.methods.lit import lit
from mmjax.optim import build_optimizer
from mmjax.paths import flatten
from mmjax.train import create_state, make_train_step
from tests.peft.towers import IDS, IMAGES, MASK, dual_encoder

BATCH = {"image": IMAGES, "text": IDS, "text_mask": MASK}
KEY = jax.random.key(0)


def start(method, **settings):
    """The optimizer and the state before the first step."""
    variables = method.init(KEY, BATCH)
    optimizer = build_optimizer(variables.params, learning_rate=0.1, trains=method.partition, **settings)
    return optimizer, create_state(variables, optimizer, key=KEY)


def adapted(**towers):
    return peft.adapt_method(clip, dual_encoder("scan_remat"), towers)


@pytest.fixture(scope="module")
def run():
    """The state before and after two steps, the metrics, and the optimizer."""
    method = adapted(image=peft.lora(rank=2), text=peft.bottleneck(2))
    optimizer, before = start(method, name="adamw", weight_decay=0.1)
    step, after = jax.jit(make_train_step(method, optimizer)), before
    for _ in range(2):
        after, metrics = step(after, BATCH)
    return optimizer, before, after, metrics


class TestTraining:
    def test_the_base_is_the_same_to_the_bit_and_adapters_learn(self, run):
        _, before, after, _ = run
        jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)
        assert {path.split("/")[0] for path in flatten(after.frozen)} == {"image", "text"}
        changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), after.trainable, before.trainable)
        assert all(flatten(changed).values())

    def test_only_adapters_and_what_is_beside_the_towers_train(self, run):
        _, _, after, _ = run
        paths = set(flatten(after.trainable))
        assert {path for path in paths if not path.startswith("adapter/")} == {"log_scale"}
        assert "adapter/image/encoder/blocks/attn/query/a" in paths
        assert "adapter/text/encoder/blocks/mlp/down/kernel" in paths

    def test_the_optimizer_holds_no_state_of_the_base(self, run):
        _, _, after, _ = run
        sizes = sum(leaf.size for leaf in jax.tree.leaves(after.trainable))
        moments = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
        scalars = 2 * sum(leaf.ndim == 0 for leaf in jax.tree.leaves(after.trainable))
        assert sum(leaf.size for leaf in moments) + scalars == 2 * sizes

    def test_encoders_are_adapted_and_merge_into_the_plain_model(self, run):
        optimizer, _, after, _ = run
        model = peft.AdaptedModel(dual_encoder("scan_remat"), peft.per_tower({"image": peft.lora(rank=2)}))
        params = optimizer.partition.join(after.trainable, after.frozen)
        params = params | {"adapter": {"image": params["adapter"]["image"]}}
        merged, report = model.merge(params)
        assert len(report.touched) == 2
        assert "adapter" not in merged
        found = peft.adapt_method(clip, dual_encoder("scan_remat"), {"image": peft.lora(rank=2)}).encoders["image"]
        expected = clip(dual_encoder("scan_remat")).encoders["image"](merged, BATCH)
        np.testing.assert_allclose(found(params, BATCH), expected, rtol=1e-4, atol=1e-5)


def test_a_locked_tower_has_its_adapter_locked():
    method = peft.adapt_method(lit, dual_encoder(), {"image": peft.lora(rank=2), "text": peft.lora(rank=2)})
    optimizer, state = start(method)
    assert {path.rpartition("encoder")[0] for path in flatten(state.trainable)} == {"adapter/text/", ""}
    assert any(leaf.path.startswith("adapter/image") for leaf in optimizer.partition.frozen)


def test_a_tower_without_adapter_trains_as_the_method_says():
    _, state = start(adapted(image=peft.lora(rank=2)))
    assert {path.split("/")[0] for path in flatten(state.trainable)} == {"adapter", "log_scale", "text"}


def test_beside_an_adapter_of_the_whole_model_nothing_trains():
    _, state = start(peft.adapt_method(clip, dual_encoder(), peft.lora(rank=2)))
    assert list(state.trainable) == ["adapter"]


def test_a_model_inside_of_a_larger_tree():
    method = adapted(image=peft.lora(rank=2), text=peft.lora(rank=2))

    def wrapped(model):
        inner = clip(model)

        def init(rng, batch):
            variables = inner.init(rng, batch)
            return variables._replace(params={"student": variables.params, "head": {"kernel": jnp.ones((2, 2))}})

        return inner._replace(init=init, partition=(("student/text/**", False), ("**", True)))

    towers = {"image": peft.lora(rank=2), "text": peft.lora(rank=2)}
    _, state = start(peft.adapt_method(wrapped, dual_encoder(), towers, at="student"))
    paths = set(flatten(state.trainable))
    assert {path for path in paths if "adapter" not in path} == {"head/kernel", "student/log_scale"}
    assert {path.split("/")[2] for path in paths if "adapter" in path} == {"image"}
    assert method.partition == (("{image/**,text/**}", False), ("**", True))


def test_rebased_adapters_belong_to_the_parameters_put_in_place():
    method = adapted(image=peft.lora(rank=2, dora=True), text=peft.unfreeze("**/ln_1/bias"))
    params = method.init(KEY, BATCH).params
    loaded = {**params, **jax.tree.map(lambda leaf: leaf + 1, {name: params[name] for name in ("image", "text")})}
    rebased = jax.jit(lambda params: peft.rebase(method, KEY, params, BATCH))(loaded)
    kernel = loaded["image"]["encoder"]["blocks"]["attn"]["query"]["kernel"]
    own = rebased["adapter"]["image"]["encoder"]["blocks"]["attn"]["query"]
    np.testing.assert_allclose(own["m"], np.linalg.norm(kernel, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(own["a"], params["adapter"]["image"]["encoder"]["blocks"]["attn"]["query"]["a"])
    bias = rebased["adapter"]["text"]["encoder"]["blocks"]["ln_1"]["bias"]
    np.testing.assert_array_equal(bias, np.ones_like(bias))
    for name in ("image", "text", "log_scale"):
        jax.tree.map(np.testing.assert_array_equal, rebased[name], loaded[name])
    kept = "adapter/image/encoder/blocks/attn/query/m"
    again = peft.rebase(method, KEY, loaded, BATCH, keep=[kept])
    np.testing.assert_array_equal(flatten(again)[kept], flatten(params)[kept])


def test_rebasing_a_method_without_adapter_changes_nothing():
    params = clip(dual_encoder()).init(jax.random.key(1), BATCH).params
    jax.tree.map(np.testing.assert_array_equal, peft.rebase(clip(dual_encoder()), KEY, params, BATCH), params)


def test_an_adapted_model_passes_for_the_model():
    model = peft.AdaptedModel(dual_encoder(), peft.frozen())
    assert model.use_bias is False
    assert model.clone(init_scale=3.0).init_scale == 3.0
    assert isinstance(model.clone(init_scale=3.0), peft.AdaptedModel)


def test_an_adapted_model_is_described_before_it_is_made():
    model = peft.AdaptedModel(dual_encoder("scan"), peft.per_tower({"image": peft.lora(rank=2), "text": peft.ia3()}))
    report = model.describe(IMAGES, IDS)
    lora, *ia3 = report.matches.counts.items()
    assert lora == ("image/**/block*/attn/{query,value}", 2)
    assert ia3 == [("text/**/block*/attn/{key,value}", 2), ("text/**/block*/mlp/{fc2,down}:in", 1)]
    # Of two layers each: query and value there, key, value and fc2 here; six kernels a layer, two and three beside.
    assert (report.adapted, report.kernels) == (10, 28)
    assert "10 of 28 kernels adapted (36%)" in str(report)


def test_what_would_silently_do_nothing_is_refused():
    with pytest.raises(ValueError, match="frozen: nothing trains"):
        peft.AdaptedModel(dual_encoder(), peft.frozen()).init(KEY, IMAGES, IDS)
    with pytest.raises(ValueError, match=r"full \+ lora: it takes the place of 'log_scale', which methods read"):
        peft.AdaptedModel(dual_encoder(), peft.chain(peft.full(), peft.lora(rank=2))).init(KEY, IMAGES, IDS)
    with pytest.raises(ValueError, match="hold no adapter, but image, text"):
        peft.AdaptedModel(dual_encoder(), peft.lora()).apply({"params": {"image": 0, "text": 0}}, IMAGES)


class TestConfig:
    def test_sections_name_adapters_and_their_settings(self):
        config = Section({"image": {"name": "lora", "rank": 2, "targets": ["**/fc1"]}, "text": {"name": "frozen"}})
        towers = {tower: peft.build_adapter(section) for tower, section in config.items()}
        config.check_read()
        method = peft.adapt_method(clip, dual_encoder(), towers)
        own = method.init(KEY, BATCH).params["adapter"]
        assert {path.rpartition("/")[0] for path in flatten(own)} == {
            f"image/encoder/block_{i}/mlp/fc1" for i in (0, 1)
        }

    def test_settings_by_pattern(self):
        adapter = peft.build_adapter(Section({"name": "lora", "targets": {"**/fc1": {"rank": 3}}}))
        assert adapter.patterns == ("**/fc1",)

    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ({"name": "lorra"}, "mmjax/peft has no 'lorra'; did you mean 'lora'"),
            ({"name": "lora", "rnk": 2}, "lora has no setting 'rnk'; did you mean 'rank'"),
            ({"name": "manifest"}, r"mmjax/peft/manifest.py holds no adapter of that name"),
            ({"rank": 2}, "an adapter needs a name, found the settings rank"),
        ],
    )
    def test_errors(self, section, message):
        with pytest.raises(ConfigError, match=message):
            peft.build_adapter(section)

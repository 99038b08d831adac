import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import peft
from mmjax.intercept import tap
from tests.peft.towers import IDS, IMAGES, LAYERS, MASK, WIDTH, image_tower, perturbed, text_tower, variables


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True], ids=["shared", "of_each_class"])
def test_coop_by_concatenation(position, specific):
    rng = np.random.default_rng(0)
    classes, count, length, width = 3, 5, 4, 2
    context = rng.normal(size=(classes, count, width) if specific else (count, width))
    prefix, suffix = rng.normal(size=(classes, 1, width)), rng.normal(size=(classes, length, width))
    names = np.array([1, 3, 4])
    found = peft.coop_prompt(context, prefix, suffix, name_lengths=names, class_token_position=position)
    for k in range(classes):
        own = context[k] if specific else context
        name, rest = suffix[k, : names[k]], suffix[k, names[k] :]
        parts = {
            "end": [own, name, rest],
            "middle": [own[: count // 2], name, own[count // 2 :], rest],
            "front": [name, own, rest],
        }[position]
        np.testing.assert_allclose(found[k], np.concatenate([prefix[k], *parts]), rtol=1e-6)


def test_an_unknown_position_is_refused():
    with pytest.raises(ValueError, match="class_token_position is 'back', expected one of 'end', 'middle', 'front'"):
        peft.coop_prompt(*3 * [jnp.zeros((1, 1, 1))], name_lengths=jnp.ones(1, int), class_token_position="back")


class TestVpt:
    MODEL = image_tower()
    PARAMS = variables(MODEL, IMAGES)

    def run(self, depth):
        """The prompts, the results of the tower, and what its blocks get and give, prompts among it."""
        adapter = peft.vpt(3, depth=depth)
        tree = perturbed(adapter.init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES), seed=1)
        inside = tap(self.MODEL.apply, ["encoder/block_*:in", "encoder/block_*", "ln_pre", "ln_post:in"])
        (_, found), values = adapter.wrap(inside)(self.PARAMS, tree, IMAGES)
        return tree["prompt"]["embedding"], found, values

    @pytest.mark.parametrize("depth", [1, 2])
    def test_prompts_stand_after_the_class_token_in_each_block(self, depth):
        prompts, _, values = self.run(depth)
        assert prompts.shape == (depth, 3, WIDTH)
        tokens = values["ln_pre"]
        expected = np.concatenate([tokens[:, :1], np.broadcast_to(prompts[0], (2, 3, WIDTH)), tokens[:, 1:]], axis=1)
        np.testing.assert_allclose(values["encoder/block_0:in"], expected, rtol=1e-6)
        before = np.array(values["encoder/block_0"])
        if depth == 2:
            before[:, 1:4] = prompts[1]
        np.testing.assert_allclose(values["encoder/block_1:in"], before, rtol=1e-6)

    def test_what_comes_after_the_blocks_sees_no_prompts(self):
        _, found, values = self.run(2)
        last = np.delete(values["encoder/block_1"], [1, 2, 3], axis=1)
        np.testing.assert_array_equal(values["ln_post:in"], last)
        np.testing.assert_array_equal(found["blocks"][-1], last)
        assert found["tokens"].shape == (2, 4, WIDTH)

    def test_the_start_is_uniform_within_the_authors_bound(self):
        tree = peft.vpt(200).init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES)
        bound = np.sqrt(6 / (3 * 4**2 + WIDTH))
        largest = np.abs(tree["prompt"]["embedding"]).max()
        assert 0.99 * bound < largest <= bound

    @pytest.mark.parametrize("depth", [0, LAYERS + 1])
    def test_a_depth_beyond_the_tower_is_refused(self, depth):
        with pytest.raises(ValueError, match=f"depth {depth}, expected 1 or more, and 1 to {LAYERS}, the blocks of"):
            peft.vpt(3, depth=depth).init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES)

    def test_a_text_tower_is_refused(self):
        model = text_tower()
        params = variables(model, IDS)
        params["params"]["patch_embed"] = {"kernel": jnp.zeros((4, 4, 3, WIDTH))}
        with pytest.raises(ValueError, match=r"'encoder' has an attention mask, .* use prompt_tuning"):
            peft.vpt(3).init(jax.random.key(0), model.apply, params, IDS)

    def test_an_encoder_that_is_not_there_is_refused(self):
        with pytest.raises(ValueError, match="vpt: the model has no 'encodr': did you mean 'encoder'"):
            peft.vpt(3, encoder="encodr").init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IMAGES)


class TestPromptTuning:
    @pytest.mark.parametrize(
        "tower",
        [{}, {"causal": False, "norm_position": "post", "pool": "mean"}, {"pool": "last"}],
        ids=["clip", "bert", "last"],
    )
    @pytest.mark.parametrize("num_prefix", [0, 1])
    def test_prompts_that_are_words_do_what_the_words_do(self, tower, num_prefix):
        model = text_tower(**tower)
        params = variables(model, IDS)
        adapter = peft.prompt_tuning(2, num_prefix=num_prefix, init_ids=(3, 4))
        tree = adapter.init(jax.random.key(0), model.apply, params, IDS, text_mask=MASK)
        found = adapter.wrap(model.apply)(params, tree, IDS, text_mask=MASK)[0]
        words = np.insert(IDS, [num_prefix, num_prefix], [3, 4], axis=1)
        mask = np.insert(MASK, [num_prefix, num_prefix], True, axis=1)
        np.testing.assert_allclose(found, model.apply(params, words, text_mask=mask)[0], rtol=1e-4, atol=1e-5)
        without = adapter.wrap(model.apply)(params, tree, IDS, MASK)[0]  # by position
        np.testing.assert_array_equal(without, found)

    def test_only_the_prompts_have_a_gradient(self):
        model, adapter = text_tower(), peft.prompt_tuning(2)
        params = variables(model, IDS)
        tree = adapter.init(jax.random.key(0), model.apply, params, IDS)
        assert 0.005 < tree["prompt"]["embedding"].std() < 0.05
        gradient = jax.grad(lambda tree: adapter.wrap(model.apply)(params, tree, IDS)[0].sum())(tree)
        assert [leaf.shape for leaf in jax.tree.leaves(gradient)] == [(2, WIDTH)]
        assert np.any(gradient["prompt"]["embedding"])

    def test_texts_that_leave_no_room_are_refused_at_the_start(self):
        model = text_tower()
        with pytest.raises(ValueError, match="longer than context_length 8") as error:
            peft.prompt_tuning(4).init(jax.random.key(0), model.apply, variables(model, IDS), IDS)
        assert "prompt_tuning gives each text 4 tokens more" in error.value.__notes__

    def test_words_of_another_number_are_refused(self):
        model = text_tower()
        with pytest.raises(ValueError, match="num_prompts is 3 with 2 init_ids"):
            peft.prompt_tuning(3, init_ids=(1, 2)).init(jax.random.key(0), model.apply, variables(model, IDS), IDS)


class TestPrefixTuning:
    MODEL = text_tower()
    PARAMS = variables(MODEL, IDS)
    ADAPTER = peft.prefix_tuning(3, encoder_hidden=4)

    def tree(self):
        return perturbed(self.ADAPTER.init(jax.random.key(0), self.MODEL.apply, self.PARAMS, IDS), seed=1)

    def test_each_attention_is_prefix_attention(self):
        tree = self.tree()
        names = "encoder/block_1/attn/{query,heads,key,value}"
        _, values = tap(self.ADAPTER.wrap(self.MODEL.apply), names)(self.PARAMS, tree, IDS)
        query, key, value = (values[f"encoder/block_1/attn/{name}"] for name in ("query", "key", "value"))
        assert key.shape == (2, 3 + 5, WIDTH)
        module = peft.PrefixEncoder(3, LAYERS, 2, WIDTH // 2, encoder_hidden=4)
        prefix = module.apply({"params": tree["prompt"]}, batch_size=1)
        prefix_key, prefix_value = prefix["keys"][1, 0], prefix["values"][1, 0]

        def heads(x):
            return x.reshape(2, -1, 2, WIDTH // 2)

        np.testing.assert_allclose(
            heads(key)[:, :3], np.broadcast_to(prefix_key.swapaxes(0, 1), (2, 3, 2, 4)), rtol=1e-5
        )
        found = peft.prefix_attention(
            heads(query), heads(key)[:, 3:], heads(value)[:, 3:], prefix_key, prefix_value, causal=True
        )
        expected = values["encoder/block_1/attn/heads"].swapaxes(1, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_without_its_projections_it_does_the_same(self):
        tree = self.tree()
        collapsed = peft.collapse_prefix(self.PARAMS, tree)
        assert jax.tree.map(jnp.shape, collapsed) == {"prompt": {"embedding": (3, LAYERS * 2 * WIDTH)}}
        f = self.ADAPTER.wrap(self.MODEL.apply)
        found, expected = (f(self.PARAMS, tree, IDS)[0] for tree in (collapsed, tree))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

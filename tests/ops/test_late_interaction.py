import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import late_interaction_scores, prompt_ensemble_scores, select_tokens

RNG = np.random.default_rng(0)
QUERIES, KEYS = (
    jnp.asarray(RNG.normal(size=(3, 4, 5)), jnp.float32),
    jnp.asarray(RNG.normal(size=(7, 2, 5)), jnp.float32),
)
QUERY_MASK = jnp.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
KEY_MASK = jnp.asarray(RNG.random((7, 2)) < 0.6).at[2].set(False)
MASKS = [{}, {"query_mask": QUERY_MASK, "key_mask": KEY_MASK}]
every_mask = pytest.mark.parametrize("masks", MASKS, ids=["all valid", "masked"])


def naive(query_mask=None, key_mask=None):
    query_mask = np.ones((3, 4), bool) if query_mask is None else query_mask
    key_mask = np.ones((7, 2), bool) if key_mask is None else key_mask
    queries, keys = (np.asarray(x, np.float64) for x in (QUERIES, KEYS))
    scores = np.zeros((3, 7))
    for a in range(3):
        for b in range(7):
            valid = [keys[b, k] / np.linalg.norm(keys[b, k]) for k in range(2) if key_mask[b, k]]
            best = [
                max(queries[a, q] / np.linalg.norm(queries[a, q]) @ key for key in valid)
                for q in range(4)
                if query_mask[a, q] and valid
            ]
            scores[a, b] = np.mean(best) if best else 0
    return scores


@every_mask
@pytest.mark.parametrize("block_size", [None, 0, 1, 3, 7, 9])
def test_scores_equal_loops_in_blocks_of_any_size(masks, block_size):
    scores = jax.jit(functools.partial(late_interaction_scores, block_size=block_size))(QUERIES, KEYS, **masks)
    np.testing.assert_allclose(scores, naive(**masks), rtol=1e-5, atol=1e-6)


@every_mask
def test_gradients_in_blocks_equal_those_of_the_dense_form(masks):
    def gradients(block_size):
        weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 7)), jnp.float32)

        def total(queries, keys):
            return jnp.sum(weights * late_interaction_scores(queries, keys, **masks, block_size=block_size))

        return jax.jit(jax.grad(total, argnums=(0, 1)))(QUERIES, KEYS)

    for dense, blocks in zip(gradients(0), gradients(2), strict=True):
        assert np.isfinite(dense).all()
        np.testing.assert_allclose(blocks, dense, rtol=1e-5, atol=1e-6)


def test_the_gradient_in_blocks_never_holds_all_token_pairs():
    """2 * 16 queries' tokens with 64 * 32 keys' tokens are 65,536 numbers; two keys at a time, 2,048."""
    tokens = [jax.ShapeDtypeStruct((count, length, 4), jnp.float32) for count, length in ((2, 16), (64, 32))]

    def temporary(block_size):
        total = lambda *tokens: late_interaction_scores(*tokens, block_size=block_size).sum()  # noqa: E731
        return jax.jit(jax.grad(total)).lower(*tokens).compile().memory_analysis().temp_size_in_bytes

    assert temporary(0) > 4 * 65536
    assert temporary(2) < temporary(0) / 3


def test_scores_are_not_symmetric():
    image, text = jnp.eye(2)[None], jnp.array([[[1.0, 0.0]]])
    assert late_interaction_scores(image, text) == 0.5  # one patch of two has its word
    assert late_interaction_scores(text, image) == 1.0  # the word has its patch


def test_half_precision_is_raised_before_the_norm():
    scores = late_interaction_scores(QUERIES.astype(jnp.bfloat16), QUERIES.astype(jnp.bfloat16))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(jnp.diagonal(scores), 1.0, rtol=1e-6)


def test_prompts_are_averaged_as_similarities():
    prompts = KEYS[:6].reshape(2, 3, 2, 5)
    mask = KEY_MASK[:6].reshape(2, 3, 2)
    scores = prompt_ensemble_scores(QUERIES, prompts, image_mask=QUERY_MASK, prompt_mask=mask)
    each = [
        late_interaction_scores(QUERIES, prompts[:, p], query_mask=QUERY_MASK, key_mask=mask[:, p]) for p in range(3)
    ]
    np.testing.assert_allclose(scores, np.mean(each, axis=0), rtol=1e-5, atol=1e-6)


TOKENS = jnp.array([[[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]], [[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]])
REFERENCES = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -5.0], [0.0, 0.0]]])


def test_pair_sum_ranks_by_the_sample_s_own_references():
    # Sums of cosines: 1, 1, 0.6 + 0.8; and 0, 0, -1. Of equals the first.
    np.testing.assert_array_equal(select_tokens(TOKENS, REFERENCES, k=3), [[2, 0, 1], [0, 1, 2]])


def test_batch_max_ranks_by_the_references_of_all_samples():
    # Best cosines with (1, 0), (0, 1), (0, -1) and 0: 1, 1, 0.8; and 1, 0, 1.
    np.testing.assert_array_equal(select_tokens(TOKENS, REFERENCES, k=3, rule="batch_max"), [[0, 1, 2], [0, 2, 1]])


def test_selection_leaves_masked_references_out_and_masked_tokens_to_the_end():
    masks = {"token_mask": jnp.array([[1, 1, 0], [1, 1, 1]], bool), "reference_mask": jnp.array([[0, 1], [1, 1]], bool)}
    # Sums: 0, 1, masked; and 0, 0, -1. Best: 0, 1, masked; and with (0, 1), (0, -1), 0: 0, 0, 1.
    np.testing.assert_array_equal(select_tokens(TOKENS, REFERENCES, k=3, **masks), [[1, 0, 2], [0, 1, 2]])
    np.testing.assert_array_equal(
        select_tokens(TOKENS, REFERENCES, k=3, rule="batch_max", **masks), [[1, 0, 2], [2, 0, 1]]
    )


def test_valid_tokens_come_first_even_without_any_valid_reference():
    masks = {"token_mask": jnp.array([[0, 1, 0], [0, 0, 1]], bool), "reference_mask": jnp.zeros((2, 2), bool)}
    for rule in ("pair_sum", "batch_max"):
        np.testing.assert_array_equal(select_tokens(TOKENS, REFERENCES, k=1, rule=rule, **masks), [[1], [2]])


def test_no_gradient_goes_through_the_choice():
    def total(tokens, references):
        index = select_tokens(tokens, references, k=2)
        return jnp.sum(jnp.take_along_axis(tokens, index[..., None], axis=1))

    tokens, references = jax.jit(jax.grad(total, argnums=(0, 1)))(TOKENS, REFERENCES)
    assert np.all(references == 0)
    np.testing.assert_array_equal(tokens[0, :, 0], [1, 0, 1])  # those chosen, 2 and 0, and no other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: late_interaction_scores(QUERIES, KEYS[..., :4]), r"query_tokens \(3, 4, 5\), key_tokens \(7, 2, 4\)"),
        (
            lambda: late_interaction_scores(QUERIES, KEYS, key_mask=KEY_MASK.T),
            r"key_mask has shape \(2, 7\), expected \(7, 2\)",
        ),
        (lambda: late_interaction_scores(QUERIES, KEYS, block_size=-2), r"block_size is -2, expected keys, 0"),
        (lambda: select_tokens(TOKENS, REFERENCES, k=0), r"k is 0, expected 1 to 3, the number of tokens"),
        (lambda: select_tokens(TOKENS, REFERENCES, k=1, rule="best"), r"rule is 'best', expected one of 'pair_sum'"),
        (lambda: select_tokens(TOKENS, REFERENCES[:1], k=1), r"tokens \(2, 3, 2\), reference_tokens \(1, 2, 2\)"),
        (lambda: prompt_ensemble_scores(QUERIES, KEYS), r"prompt_tokens has shape \(7, 2, 5\), expected 4 axes"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

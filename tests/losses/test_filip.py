import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses

filip_loss = jax.jit(losses.filip_loss, static_argnames=("top_k", "rule"))

RNG = np.random.default_rng(0)
IMAGES, TEXTS = (jnp.asarray(RNG.normal(size=(3, length, 5)), jnp.float32) for length in (4, 3))
SCALE = 5.0


def naive(images, texts, image_valid, text_valid):
    """Pair by pair and token by token in float64."""

    def unit(x):
        return x / np.linalg.norm(x)

    def score(queries, query_valid, keys, key_valid):
        best = [
            max(unit(q) @ unit(k) for k, valid in zip(keys, key_valid, strict=True) if valid)
            for q, valid in zip(queries, query_valid, strict=True)
            if valid
        ]
        return SCALE * np.mean(best)

    images, texts = np.asarray(images, np.float64), np.asarray(texts, np.float64)
    values = []
    for i in range(len(images)):
        rows = [score(images[i], image_valid[i], texts[j], text_valid[j]) for j in range(len(texts))]
        columns = [score(texts[i], text_valid[i], images[j], image_valid[j]) for j in range(len(images))]
        values.append(0.5 * sum(np.log(np.sum(np.exp(logits))) - logits[i] for logits in (rows, columns)))
    return values


def test_equals_loops():
    valid = np.ones((3, 4), bool), np.ones((3, 3), bool)
    np.testing.assert_allclose(filip_loss(IMAGES, TEXTS, scale=SCALE), naive(IMAGES, TEXTS, *valid), rtol=1e-5)


def test_masked_equals_loops_over_valid_tokens():
    image_mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    text_mask = np.array([[1, 0, 0], [1, 1, 1], [0, 1, 1]], bool)
    value = filip_loss(IMAGES, TEXTS, scale=SCALE, image_mask=image_mask, text_mask=text_mask)
    np.testing.assert_allclose(value, naive(IMAGES, TEXTS, image_mask, text_mask), rtol=1e-5)


def test_one_token_each_is_clip_loss():
    images, texts = IMAGES[:, 0], TEXTS[:, 0]
    value = filip_loss(images[:, None], texts[:, None], scale=SCALE)
    np.testing.assert_allclose(value, losses.clip_loss(images, texts, scale=SCALE), rtol=1e-5)


def test_all_keys_selected_is_no_selection():
    value = filip_loss(IMAGES, TEXTS[:, [0, 1, 2, 0]], scale=SCALE, top_k=4)
    np.testing.assert_allclose(value, filip_loss(IMAGES, TEXTS[:, [0, 1, 2, 0]], scale=SCALE), rtol=1e-5)


@pytest.mark.parametrize("rule", ["pair_sum", "batch_max"])
def test_padding_that_is_selected_stays_padding(rule):
    """A text with one valid token and two keys: what stands in its padding does not matter."""
    mask = jnp.array([[True, False, False]] * 3)
    values = [
        filip_loss(IMAGES, TEXTS.at[:, 1:].set(other), scale=SCALE, text_mask=mask, top_k=2, rule=rule)
        for other in (TEXTS[:, 1:], 9.0)
    ]
    np.testing.assert_allclose(*values, rtol=1e-5)


def test_keys_that_were_not_selected_are_still_queries():
    """So every token has a gradient, the selected and the others."""
    gradient = jax.jit(jax.grad(lambda x: losses.filip_loss(x, TEXTS, scale=SCALE, top_k=1).sum()))(IMAGES)
    assert np.min(np.max(np.abs(gradient), axis=-1)) > 1e-4


def test_a_sample_without_valid_tokens_gives_finite_gradients():
    mask = jnp.ones((3, 3), bool).at[1].set(False)

    def total(images, texts):
        return losses.filip_loss(images, texts, scale=SCALE, text_mask=mask).sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(IMAGES, TEXTS)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.all(gradients[1][1] == 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.filip_loss(IMAGES, TEXTS[:2], scale=1.0),
            r"filip_loss: .*image_tokens \(3, 4, 5\), text_tokens",
        ),
        (
            lambda: losses.filip_loss(IMAGES[0], TEXTS, scale=1.0),
            r"filip_loss: image_tokens has shape \(4, 5\), expected 3",
        ),
        (lambda: losses.filip_loss(IMAGES, TEXTS, scale=1.0, top_k=4), r"select_tokens: k is 4, expected 1 to 3"),
        (
            lambda: losses.filip_loss(IMAGES, TEXTS, scale=1.0, text_mask=jnp.ones((3, 2), bool)),
            r"mask has shape \(3, 2\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

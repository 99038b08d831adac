import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses

masked_token_cross_entropy = jax.jit(losses.masked_token_cross_entropy)

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
LABELS = jnp.array([[1, 4, -1], [0, -1, -1]])


def test_equals_loops():
    terms = [
        -np.log(np.exp(LOGITS[b, t, label]) / np.exp(LOGITS[b, t]).sum())
        for b, row in enumerate(np.asarray(LABELS))
        for t, label in enumerate(row)
        if label != -1
    ]
    assert len(terms) == 3
    np.testing.assert_allclose(masked_token_cross_entropy(LOGITS, LABELS), np.mean(terms), rtol=1e-5)


def test_a_mean_over_tokens_not_over_texts():
    """Two tokens of cost log 2 in text 0, one of log 4 in text 1: the mean is 4/3 log 2, that of texts 3/2 log 2."""
    wide = jnp.array([0.0, 0.0, -1e9, -1e9])
    logits = jnp.stack([jnp.stack([wide, wide]), jnp.zeros((2, 4))])
    value = masked_token_cross_entropy(logits, jnp.array([[0, 1], [3, -1]]))
    np.testing.assert_allclose(value, 4 / 3 * np.log(2), rtol=1e-6)


def test_ignored_positions_equal_the_subset():
    kept = masked_token_cross_entropy(LOGITS[:1, :2], LABELS[:1, :2])
    masked = masked_token_cross_entropy(LOGITS, LABELS.at[1].set(-1))
    np.testing.assert_allclose(masked, kept, rtol=1e-6)


@pytest.mark.parametrize("ignore_index", [-100, 0, 3])
def test_ignore_index(ignore_index):
    labels = jnp.where(LABELS == -1, ignore_index, jnp.array([[1, 4, 0], [2, 0, 0]]))
    expected = masked_token_cross_entropy(LOGITS, jnp.where(labels == ignore_index, -1, labels))
    np.testing.assert_allclose(
        masked_token_cross_entropy(LOGITS, labels, ignore_index=ignore_index), expected, rtol=1e-6
    )


def test_nothing_to_predict_is_zero_with_gradient_zero():
    value, gradient = jax.jit(jax.value_and_grad(masked_token_cross_entropy))(LOGITS, jnp.full((2, 3), -1))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_ignored_logits_may_be_anything(garbage):
    logits = LOGITS.at[1, 1].set(garbage)
    value, gradient = jax.jit(jax.value_and_grad(masked_token_cross_entropy))(logits, LABELS)
    np.testing.assert_allclose(value, masked_token_cross_entropy(LOGITS, LABELS), rtol=1e-6)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[1, 1], 0.0)


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(
        masked_token_cross_entropy(jnp.full((1, 1, 4), 1e4), jnp.array([[2]])), np.log(4), rtol=1e-3
    )


def test_errors():
    with pytest.raises(ValueError, match=r"logits \(2, 3, 5\) and labels \(2, 2\), expected \[B, T, V\] and \[B, T\]"):
        masked_token_cross_entropy(LOGITS, LABELS[:, :2])
    with pytest.raises(TypeError, match="labels has dtype float32, expected integers"):
        masked_token_cross_entropy(LOGITS, LABELS * 1.0)

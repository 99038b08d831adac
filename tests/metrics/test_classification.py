import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.metrics import topk_accuracy

RNG = np.random.default_rng(0)
LOGITS = RNG.integers(0, 4, size=(30, 6)).astype(np.float32)  # ties everywhere
LABELS = RNG.integers(0, 6, size=30)


@pytest.mark.parametrize("k", [1, 2, 5, 6, 10])
def test_equals_a_stable_sort(k):
    expected = np.mean(
        [label in np.argsort(-row, kind="stable")[:k] for row, label in zip(LOGITS, LABELS, strict=True)]
    )
    np.testing.assert_allclose(topk_accuracy(LOGITS, LABELS, k=k), expected, rtol=1e-6)


def test_of_equal_scores_the_lower_index_wins():
    """A collapsed classifier is right where the label is 0, and at k = 2 where it is 0 or 1."""
    labels = jnp.array([0, 1, 2, 0])
    assert topk_accuracy(jnp.zeros((4, 3)), labels) == 0.5
    assert topk_accuracy(jnp.zeros((4, 3)), labels, k=2) == 0.75


@pytest.mark.parametrize("label", [0, 1, 2])
def test_nan_is_never_right(label):
    assert topk_accuracy(jnp.full((1, 3), jnp.nan), jnp.array([label]), k=2) == 0


def test_a_nan_of_another_class_stands_in_front():
    logits = jnp.array([[0.9, jnp.nan, 0.1]])
    assert topk_accuracy(logits, jnp.array([0])) == 0
    assert topk_accuracy(logits, jnp.array([0]), k=2) == 1


def test_under_jit():
    value = jax.jit(topk_accuracy, static_argnames="k")(LOGITS, LABELS, k=2)
    np.testing.assert_allclose(value, topk_accuracy(LOGITS, LABELS, k=2), rtol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"topk_accuracy: .*logits \(30, 6\), labels \(29,\)"):
        topk_accuracy(LOGITS, LABELS[1:])
    with pytest.raises(TypeError, match=r"topk_accuracy: labels has dtype float32, expected integers"):
        topk_accuracy(LOGITS, LABELS.astype(np.float32))

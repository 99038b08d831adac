import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import l2_normalize, zero_shot_classifier


def test_hand_derived():
    # Prompts (1, 0) and (0, 1) after normalisation: their mean points along the diagonal, whatever their lengths were.
    weights = zero_shot_classifier(jnp.array([[[0.0, 2.0], [3.0, 0.0]], [[5.0, 0.0], [1.0, 0.0]]]))
    np.testing.assert_allclose(weights, [[np.sqrt(0.5), np.sqrt(0.5)], [1.0, 0.0]], rtol=1e-6)


def test_one_prompt_is_its_normalised_embedding():
    prompts = np.random.default_rng(0).normal(size=(3, 1, 4))
    np.testing.assert_allclose(zero_shot_classifier(prompts), l2_normalize(prompts[:, 0]), rtol=1e-6)


def test_order_of_prompts_does_not_matter():
    prompts = np.random.default_rng(0).normal(size=(3, 5, 4))
    np.testing.assert_allclose(zero_shot_classifier(prompts[:, ::-1]), zero_shot_classifier(prompts), rtol=1e-5)


def test_opposite_prompts_cancel_to_zero_with_a_finite_gradient():
    prompts = jnp.array([[[1.0, 0.0], [-2.0, 0.0]]])
    np.testing.assert_array_equal(zero_shot_classifier(prompts), 0.0)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda p: jnp.sum(zero_shot_classifier(p))))(prompts)))


def test_half_precision_gives_float32():
    assert zero_shot_classifier(jnp.ones((2, 2, 3), jnp.bfloat16)).dtype == jnp.float32


def test_rank_is_checked():
    with pytest.raises(ValueError, match=r"prompt_embeds has shape \(2, 3\), expected 3 axes"):
        zero_shot_classifier(jnp.ones((2, 3)))

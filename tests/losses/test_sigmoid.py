import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses

siglip_loss = jax.jit(losses.siglip_loss, static_argnames="negative_only")

RNG = np.random.default_rng(0)
IMAGES, TEXTS = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))
SETTINGS = {"scale": 5.0, "bias": -2.0}


def naive(images, texts, scale, bias, negative_only):
    """Pair by pair in float64: minus the log-probability of the right answer."""
    values = []
    for i, image in enumerate(np.asarray(images, np.float64)):
        value = 0.0
        for j, text in enumerate(np.asarray(texts, np.float64)):
            logit = scale * image @ text / np.linalg.norm(image) / np.linalg.norm(text) + bias
            match = 1 / (1 + np.exp(-logit))
            value -= np.log(match if i == j and not negative_only else 1 - match)
        values.append(value)
    return values


@pytest.mark.parametrize("negative_only", [False, True])
def test_equals_loops(negative_only):
    value = siglip_loss(IMAGES, TEXTS, **SETTINGS, negative_only=negative_only)
    np.testing.assert_allclose(value, naive(IMAGES, TEXTS, 5.0, -2.0, negative_only), rtol=1e-5)


def test_hand_derived():
    # Cosines 1 on the diagonal and 0 elsewhere: logits -1 and -3.
    value = siglip_loss(jnp.eye(2), jnp.eye(2), scale=2.0, bias=-3.0)
    np.testing.assert_allclose(value, np.full(2, np.log1p(np.exp(1.0)) + np.log1p(np.exp(-3.0))), rtol=1e-6)


def test_the_mean_divides_by_the_batch_not_by_its_square():
    """With every logit 0 each of the B pairs of an image costs log 2."""
    np.testing.assert_allclose(siglip_loss(IMAGES, TEXTS, scale=0.0, bias=0.0).mean(), 4 * np.log(2), rtol=1e-6)


def test_shards_of_texts_add_up():
    """A ring of two devices: the own block plainly, the other's as negatives only."""
    rows = [slice(0, 2), slice(2, 4)]
    value = jnp.concatenate(
        [
            siglip_loss(IMAGES[own], TEXTS[own], **SETTINGS)
            + siglip_loss(IMAGES[own], TEXTS[other], **SETTINGS, negative_only=True)
            for own, other in (rows, rows[::-1])
        ]
    )
    np.testing.assert_allclose(value, siglip_loss(IMAGES, TEXTS, **SETTINGS), rtol=1e-5)


def test_negatives_may_be_of_any_number():
    value = siglip_loss(IMAGES, TEXTS[:1], **SETTINGS, negative_only=True)
    np.testing.assert_allclose(value, naive(IMAGES, TEXTS[:1], 5.0, -2.0, True), rtol=1e-5)


def test_sum_is_symmetric_in_its_arguments():
    total = siglip_loss(IMAGES, TEXTS, **SETTINGS).sum()
    np.testing.assert_allclose(siglip_loss(TEXTS, IMAGES, **SETTINGS).sum(), total, rtol=1e-5)


def test_finite_at_a_huge_scale():
    value, gradient = jax.jit(jax.value_and_grad(lambda a: siglip_loss(a, TEXTS, scale=1e6, bias=-10.0).mean()))(IMAGES)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_errors():
    with pytest.raises(ValueError, match=r"siglip_loss: .*image_embeds \(4, 3\), text_embeds \(2, 3\)"):
        siglip_loss(IMAGES, TEXTS[:2], **SETTINGS)
    with pytest.raises(ValueError, match=r"siglip_loss: .*image_embeds \(4, 3\), text_embeds \(4, 2\)"):
        siglip_loss(IMAGES, TEXTS[:, :2], **SETTINGS, negative_only=True)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import cosine_similarity


def test_equals_loops():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    expected = [[x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for y in b] for x in a]
    np.testing.assert_allclose(cosine_similarity(a, b), expected, rtol=1e-5, atol=1e-6)


def test_leading_axes_are_batches():
    a, b = (
        np.random.default_rng(0).normal(size=(2, 6, 3, 4))[:, :, :2],
        np.random.default_rng(1).normal(size=(2, 6, 3, 4)),
    )
    similarity = cosine_similarity(a, b)
    assert similarity.shape == (2, 6, 2, 3)
    np.testing.assert_allclose(similarity[1, 4], cosine_similarity(a[1, 4], b[1, 4]), rtol=1e-5, atol=1e-6)


def test_zero_rows_have_similarity_zero_and_a_finite_gradient():
    a, b = jnp.zeros((2, 3)), jnp.ones((2, 3))
    np.testing.assert_array_equal(cosine_similarity(a, b), 0.0)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda a: jnp.sum(cosine_similarity(a, b))))(a)))


def test_half_precision_is_raised_before_the_norm():
    a = jnp.array([[1.0, 2.0, 3.0]], jnp.bfloat16)
    similarity = cosine_similarity(a, a)
    assert similarity.dtype == jnp.float32
    np.testing.assert_allclose(similarity, 1.0, rtol=1e-6)


def test_the_product_asks_for_full_precision():
    (dot,) = [
        e
        for e in jax.make_jaxpr(cosine_similarity)(jnp.ones((2, 3)), jnp.ones((2, 3))).eqns
        if e.primitive.name == "dot_general"
    ]
    assert set(dot.params["precision"]) == {jax.lax.Precision.HIGHEST}


def test_widths_must_agree():
    with pytest.raises(ValueError, match=r"cosine_similarity: .*a \(2, 3\), b \(2, 4\)"):
        cosine_similarity(jnp.ones((2, 3)), jnp.ones((2, 4)))

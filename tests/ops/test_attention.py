import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import attend, attention_probabilities, fused_attention, has_flash_attention


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def naive(query, key, mask):
    """Probabilities by loops over everything."""
    batch, heads, queries, width = query.shape
    probabilities = np.zeros((batch, heads, queries, key.shape[2]))
    for b, n, q in np.ndindex(batch, heads, queries):
        keys = [k for k in range(key.shape[2]) if mask[b, n, q, k]]
        weights = [np.exp(query[b, n, q] @ key[b, n, k] / width**0.5) for k in keys]
        probabilities[b, n, q, keys] = np.array(weights) / sum(weights)
    return probabilities


def test_probabilities_against_loops():
    query, key = arrays((2, 3, 4, 5), (2, 3, 6, 5))
    mask = np.random.default_rng(1).random((2, 3, 4, 6)) < 0.6
    mask[..., 0] = True
    np.testing.assert_allclose(attention_probabilities(query, key, mask=mask), naive(query, key, mask), rtol=1e-5)
    everything = np.ones_like(mask)
    np.testing.assert_allclose(attention_probabilities(query, key), naive(query, key, everything), rtol=1e-5)


def test_attend_is_the_weighted_sum_of_values():
    probabilities, value = arrays((2, 3, 4, 6), (2, 3, 6, 5))
    np.testing.assert_allclose(attend(probabilities, value), probabilities @ value, rtol=1e-5, atol=1e-6)


def test_a_query_without_keys_gets_zeros_and_finite_gradients():
    query, key, value = arrays((1, 1, 2, 4), (1, 1, 3, 4), (1, 1, 3, 4))
    mask = jnp.array([[False, False, False], [True, False, True]])

    def total(query, key, value):
        return jnp.sum(attend(attention_probabilities(query, key, mask=mask), value) ** 2)

    np.testing.assert_array_equal(attention_probabilities(query, key, mask=mask)[0, 0, 0], 0.0)
    with jax.debug_nans(True):
        gradients = jax.grad(total, (0, 1, 2))(query, key, value)
    assert all(bool(jnp.isfinite(gradient).all()) for gradient in gradients)
    np.testing.assert_array_equal(gradients[0][0, 0, 0], 0.0)
    assert bool(jnp.any(gradients[0][0, 0, 1] != 0))


def test_a_masked_key_is_an_absent_key():
    query, key = arrays((1, 2, 3, 4), (1, 2, 5, 4))
    mask = jnp.array([True, False, True, True, False])
    np.testing.assert_allclose(
        attention_probabilities(query, key, mask=mask)[..., mask],
        attention_probabilities(query, key[:, :, mask]),
        rtol=1e-6,
    )


def test_huge_logits_do_not_overflow():
    query = key = jnp.full((1, 1, 2, 4), 1e10)
    np.testing.assert_array_equal(attention_probabilities(query, key), 0.5)


def test_softmax_of_bfloat16_is_float32():
    query, key = (jnp.asarray(x, jnp.bfloat16) for x in arrays((1, 1, 4, 8), (1, 1, 300, 8)))
    probabilities = attention_probabilities(query, key)
    assert probabilities.dtype == jnp.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    assert attend(probabilities, jnp.ones((1, 1, 300, 2), jnp.bfloat16)).dtype == jnp.bfloat16


def test_wrong_rank_is_named():
    with pytest.raises(ValueError, match=r"attention_probabilities: key has shape \(2, 3\), expected 4 axes"):
        attention_probabilities(jnp.ones((1, 1, 2, 3)), jnp.ones((2, 3)))


MASKS = {
    "none": None,
    "causal": np.tril(np.ones((4, 4), bool)),
    "padding": np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)[:, None, None, :],
    "a row and an example without keys": np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)[:, None, None, :]
    & np.array([1, 0, 1, 1], bool)[None, None, :, None],
    "each head its own": np.random.default_rng(2).random((2, 3, 4, 4)) < 0.5,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_fused_attention_has_the_values_and_gradients_of_the_two_products(mask):
    def value_and_gradients(attention):
        def total(query, key, value):
            out = attention(query, key, value)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*arrays((2, 3, 4, 8), (2, 3, 4, 8), (2, 3, 4, 8)))

    found = value_and_gradients(lambda q, k, v: fused_attention(q, k, v, mask=mask))
    expected = value_and_gradients(lambda q, k, v: attend(attention_probabilities(q, k, mask=mask), v))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_fused_attention_lowers_without_the_device(platform):
    x = jax.ShapeDtypeStruct((2, 3, 4, 8), jnp.bfloat16)
    mask = jax.ShapeDtypeStruct((2, 1, 1, 4), jnp.bool_)
    gradient = jax.grad(lambda q, k, v, mask: jnp.sum(fused_attention(q, k, v, mask=mask)), (0, 1, 2))
    assert (
        "stablehlo.dot_general"
        in jax.jit(gradient).trace(x, x, x, mask).lower(lowering_platforms=(platform,)).as_text()
    )


@pytest.mark.parametrize(
    ("length", "width", "dtype", "masked", "expected"),
    [
        (4, 64, jnp.bfloat16, True, True),
        (5, 64, jnp.float16, False, True),
        (5, 64, jnp.bfloat16, True, False),
        (4, 64, jnp.float32, False, False),
        (4, 68, jnp.bfloat16, False, False),
        (4, 256, jnp.bfloat16, False, False),
    ],
)
def test_where_cudnn_has_a_kernel(monkeypatch, length, width, dtype, masked, expected):
    x = jax.ShapeDtypeStruct((2, 3, length, width), dtype)
    mask = jnp.ones((2, 1, 1, length), bool) if masked else None
    assert not has_flash_attention(x, x, mask=mask)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert has_flash_attention(x, x, mask=mask) == expected

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import losses

clip_loss, info_nce, similarity_info_nce = map(jax.jit, (losses.clip_loss, losses.info_nce, losses.similarity_info_nce))

RNG = np.random.default_rng(0)
IMAGES, TEXTS = (jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for _ in range(2))
SCALE = 5.0


def naive_info_nce(queries, keys, scale, positive_index, left_out=lambda i, j: False):
    """Term by term in float64."""
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)

    def exponential(i, j):
        return np.exp(scale * queries[i] @ keys[j] / np.linalg.norm(queries[i]) / np.linalg.norm(keys[j]))

    return [
        -np.log(exponential(i, p) / sum(exponential(i, j) for j in range(len(keys)) if not left_out(i, j)))
        for i, p in enumerate(positive_index)
    ]


def test_clip_loss_equals_loops():
    expected = np.mean([naive_info_nce(a, b, SCALE, range(4)) for a, b in ((IMAGES, TEXTS), (TEXTS, IMAGES))], axis=0)
    np.testing.assert_allclose(clip_loss(IMAGES, TEXTS, scale=SCALE), expected, rtol=1e-5)


def test_clip_loss_of_orthogonal_pairs():
    # Each of three: cosine 1 with its own, 0 with the two others: log(1 + 2 exp(-scale)) in both directions.
    np.testing.assert_allclose(
        clip_loss(jnp.eye(3), 7 * jnp.eye(3), scale=2.0), np.full(3, np.log(1 + 2 * np.exp(-2.0))), rtol=1e-6
    )


def test_clip_loss_of_a_collapsed_model_is_log_of_the_batch():
    np.testing.assert_allclose(
        clip_loss(jnp.ones((4, 3)), jnp.ones((4, 3)), scale=100.0), np.full(4, np.log(4)), rtol=1e-5
    )


def test_clip_loss_of_one_pair_is_zero_with_gradient_zero():
    value, gradients = jax.jit(jax.value_and_grad(lambda a, b, s: clip_loss(a, b, scale=s)[0], argnums=(0, 1, 2)))(
        IMAGES[:1], TEXTS[:1], 100.0
    )
    assert value == 0
    assert all(np.all(gradient == 0) for gradient in gradients)


def test_clip_loss_is_symmetric_in_its_arguments():
    np.testing.assert_allclose(clip_loss(TEXTS, IMAGES, scale=SCALE), clip_loss(IMAGES, TEXTS, scale=SCALE), rtol=1e-5)


def test_clip_loss_ignores_the_length_of_embeddings():
    lengths = jnp.array([[0.1], [2.0], [30.0], [1.0]])
    np.testing.assert_allclose(
        clip_loss(lengths * IMAGES, TEXTS, scale=SCALE), clip_loss(IMAGES, TEXTS, scale=SCALE), rtol=1e-4
    )


def test_clip_loss_is_finite_at_a_huge_scale():
    value, gradient = jax.jit(jax.value_and_grad(lambda a: clip_loss(a, TEXTS, scale=1e6).mean()))(IMAGES)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_clip_loss_is_the_mean_of_both_directions():
    halves = 0.5 * (info_nce(IMAGES, TEXTS, scale=SCALE) + info_nce(TEXTS, IMAGES, scale=SCALE))
    np.testing.assert_allclose(clip_loss(IMAGES, TEXTS, scale=SCALE), halves, rtol=1e-5)


def test_similarity_info_nce_takes_the_similarity_as_it_is():
    similarity = np.array([[1.0, -2.0], [3.0, 0.5]])
    rows = np.log(np.exp(similarity).sum(1)) - similarity.diagonal()
    columns = np.log(np.exp(similarity).sum(0)) - similarity.diagonal()
    np.testing.assert_allclose(similarity_info_nce(similarity, scale=1.0), (rows + columns) / 2, rtol=1e-5)
    np.testing.assert_allclose(similarity_info_nce(similarity / 4, scale=4.0), (rows + columns) / 2, rtol=1e-5)


def test_info_nce_equals_loops_with_more_keys_than_queries():
    positives = jnp.array([3, 0])
    value = info_nce(IMAGES[:2], TEXTS, scale=SCALE, positive_index=positives)
    np.testing.assert_allclose(value, naive_info_nce(IMAGES[:2], TEXTS, SCALE, [3, 0]), rtol=1e-5)


def test_info_nce_of_shards_is_the_whole():
    """Local queries against gathered keys: values and summed gradients are those of one device."""

    def sharded(images, texts):
        shards = [
            info_nce(images[2 * rank : 2 * rank + 2], texts, scale=SCALE, positive_index=jnp.arange(2) + 2 * rank)
            for rank in range(2)
        ]
        return jnp.concatenate(shards)

    def whole(images, texts):
        return info_nce(images, texts, scale=SCALE)

    np.testing.assert_allclose(sharded(IMAGES, TEXTS), whole(IMAGES, TEXTS), rtol=1e-5)
    gradients = [
        jax.jit(jax.grad(lambda a, b, f=f: f(a, b).sum(), argnums=(0, 1)))(IMAGES, TEXTS) for f in (sharded, whole)
    ]
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_info_nce_reaches_queries_and_keys():
    gradients = jax.jit(jax.grad(lambda q, k: info_nce(q, k, scale=SCALE).sum(), argnums=(0, 1)))(IMAGES, TEXTS)
    assert all(np.abs(gradient).max(axis=1).min() > 1e-3 for gradient in gradients)


IDS = jnp.array([7, 3, 7, 7])


def test_info_nce_ids_equal_loops():
    expected = naive_info_nce(IMAGES, TEXTS, SCALE, range(4), lambda i, j: i != j and bool(IDS[i] == IDS[j]))
    np.testing.assert_allclose(info_nce(IMAGES, TEXTS, scale=SCALE, ids=IDS), expected, rtol=1e-5, atol=1e-6)


def test_info_nce_ids_equal_the_subset_of_keys():
    value = info_nce(IMAGES, TEXTS, scale=SCALE, ids=IDS)[0]
    subset = info_nce(IMAGES[:1], TEXTS[:2], scale=SCALE)  # of the keys with id 7 only query 0's own
    np.testing.assert_allclose(value, subset[0], rtol=1e-5)


def test_info_nce_keys_left_out_get_no_gradient():
    gradient = jax.jit(jax.grad(lambda keys: info_nce(IMAGES, keys, scale=SCALE, ids=IDS)[2]))(TEXTS)
    np.testing.assert_array_equal(gradient[jnp.array([0, 3])], 0.0)
    assert np.abs(gradient[jnp.array([1, 2])]).min() > 0


def test_info_nce_ids_follow_the_positive_index():
    """The query's own key stays wherever it stands, and the one on the diagonal goes if it shows the same."""
    positives = jnp.array([2, 1, 0, 3])
    expected = naive_info_nce(
        IMAGES, TEXTS, SCALE, positives, lambda i, j: j != positives[i] and bool(IDS[i] == IDS[j])
    )
    np.testing.assert_allclose(
        info_nce(IMAGES, TEXTS, scale=SCALE, positive_index=positives, ids=IDS), expected, rtol=1e-5
    )


@pytest.mark.parametrize(("ids", "expected"), [([1, 1, 1, 1], 0.0), ([1, 2, 3, 4], np.log(4))])
def test_info_nce_ids_all_equal_and_all_different(ids, expected):
    """A collapsed model: without negatives 0, with all of them log of the batch, and a finite gradient."""
    value, gradient = jax.jit(jax.value_and_grad(lambda x: info_nce(x, x, scale=SCALE, ids=jnp.array(ids)).mean()))(
        jnp.ones((4, 3))
    )
    np.testing.assert_allclose(value, expected, atol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: clip_loss(IMAGES, TEXTS[:3], scale=1.0),
            ValueError,
            r"clip_loss: .*image_embeds \(4, 3\), text_embeds \(3, 3\)",
        ),
        (
            lambda: clip_loss(IMAGES[0], TEXTS, scale=1.0),
            ValueError,
            r"clip_loss: image_embeds has shape \(3,\), expected 2 axes",
        ),
        (lambda: similarity_info_nce(jnp.ones((2, 3)), scale=1.0), ValueError, r"shape \(2, 3\), expected a square"),
        (lambda: info_nce(IMAGES, TEXTS[:, :2], scale=1.0), ValueError, r"info_nce: .*queries \(4, 3\), keys \(4, 2\)"),
        (lambda: info_nce(IMAGES, TEXTS[:2], scale=1.0), ValueError, r"4 queries, 2 keys; give positive_index"),
        (
            lambda: info_nce(IMAGES, TEXTS, scale=1.0, positive_index=jnp.arange(3)),
            ValueError,
            r"positive_index \(3,\)",
        ),
        (
            lambda: info_nce(IMAGES, TEXTS, scale=1.0, positive_index=jnp.ones(4)),
            TypeError,
            r"positive_index has dtype float32",
        ),
        (
            lambda: info_nce(IMAGES[:2], TEXTS, scale=1.0, ids=jnp.arange(2)),
            ValueError,
            r"queries \(2, 3\), keys \(4, 3\), ids \(2,\)",
        ),
        (
            lambda: info_nce(IMAGES, TEXTS, scale=1.0, ids=jnp.ones(4)),
            TypeError,
            r"ids has dtype float32, expected integers",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()

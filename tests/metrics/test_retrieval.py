import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.metrics import recall_at_k, recall_fraction_at_k, retrieval_ranks, retrieval_report

RNG = np.random.default_rng(0)
SCORES = RNG.integers(0, 4, size=(20, 6)).astype(np.float32)  # four values over six items: ties everywhere
POSITIVES = RNG.random((20, 6)) < 0.3
POSITIVES[0] = False
TIES = ("best", "worst", "mean")


def naive_rank(scores, positives, ties):
    if not positives.any():
        return len(scores)
    best = max(score for score, positive in zip(scores, positives, strict=True) if positive)
    low = sum(score > best for score in scores)
    high = sum(score >= best for score, positive in zip(scores, positives, strict=True) if not positive)
    return {"best": low, "worst": high, "mean": (low + high) / 2}[ties]


@pytest.mark.parametrize("ties", TIES)
def test_ranks_equal_loops(ties):
    ranks = retrieval_ranks(SCORES, POSITIVES, ties=ties)
    np.testing.assert_array_equal(ranks, [naive_rank(s, p, ties) for s, p in zip(SCORES, POSITIVES, strict=True)])
    assert jnp.issubdtype(ranks.dtype, jnp.floating) == (ties == "mean")


def test_ties_matter_in_the_draw():
    """The comparison above would be empty if the rules agreed."""
    best, worst = (retrieval_ranks(SCORES, POSITIVES, ties=ties) for ties in ("best", "worst"))
    assert np.mean(np.asarray(best != worst)) > 0.3


@pytest.mark.parametrize(("ties", "rank", "recall"), [("best", 0, 1.0), ("worst", 4, 0.0), ("mean", 2.0, 0.0)])
def test_a_collapsed_model(ties, rank, recall):
    """All scores equal, one positive of five: perfect by the best rule, worthless by the others."""
    ranks = retrieval_ranks(np.zeros((5, 5)), np.eye(5, dtype=bool), ties=ties)
    np.testing.assert_array_equal(ranks, rank)
    assert recall_at_k(ranks, k=1) == recall


def test_a_query_without_a_positive_has_rank_n():
    for ties in TIES:
        assert retrieval_ranks(SCORES, POSITIVES, ties=ties)[0] == 6


@pytest.mark.parametrize("ties", TIES)
def test_nan_counts_against_the_model(ties):
    scores = np.array([[np.nan, 0.5, 0.1], [0.2, np.nan, 0.1], [np.nan, np.nan, np.nan]])
    positives = np.array([[True, False, False], [True, False, False], [False, True, False]])
    np.testing.assert_array_equal(retrieval_ranks(scores, positives, ties=ties), [2, 1, 2])
    np.testing.assert_array_equal(recall_fraction_at_k(scores, positives, k=1), 0.0)


def test_ranks_follow_the_order_of_items():
    order = RNG.permutation(6)
    np.testing.assert_array_equal(
        retrieval_ranks(SCORES[:, order], POSITIVES[:, order]), retrieval_ranks(SCORES, POSITIVES)
    )


@pytest.mark.parametrize(("k", "recall"), [(1, 0.25), (2, 0.5), (4, 0.75), (8, 1.0)])
def test_recall_at_k(k, recall):
    assert recall_at_k(jnp.array([0, 3, 1, 7]), k=k) == recall


def test_the_two_definitions_of_recall_differ():
    """Five captions an image, one of them in front: any hit says 1, the fraction says 1/5 at k = 1, 2/5 at k = 5."""
    scores = np.array([[0.9, 0.4, 0.1, 0.2, 0.3, 0.8, 0.7, 0.6]])
    positives = np.array([[True, True, True, True, True, False, False, False]])
    ranks = retrieval_ranks(scores, positives)
    assert [recall_at_k(ranks, k=k).item() for k in (1, 5)] == [1.0, 1.0]
    fractions = [recall_fraction_at_k(scores, positives, k=k).item() for k in (1, 5)]
    np.testing.assert_allclose(fractions, [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 6, 50])
def test_recall_fraction_equals_a_stable_sort(k):
    expected = []
    for scores, positives in zip(SCORES, POSITIVES, strict=True):
        top = np.argsort(-scores, kind="stable")[:k]
        expected.append(positives[top].sum() / max(positives.sum(), 1))
    np.testing.assert_allclose(recall_fraction_at_k(SCORES, POSITIVES, k=k), expected, rtol=1e-6)


def test_both_definitions_agree_for_one_positive_a_query():
    scores = RNG.permutation(36).reshape(6, 6)
    ranks = retrieval_ranks(scores, np.eye(6, dtype=bool))
    for k in (1, 2, 5):
        fraction = recall_fraction_at_k(scores, np.eye(6, dtype=bool), k=k).mean()
        np.testing.assert_allclose(fraction, recall_at_k(ranks, k=k), rtol=1e-6)


def test_report_by_hand():
    """Two images of two captions each, 1 of 2 images and 3 of 4 captions right at k = 1, all at k = 5."""
    positives = np.array([[True, True, False, False], [False, False, True, True]])
    scores_i2t = np.array([[0.9, 0.1, 0.2, 0.3], [0.8, 0.1, 0.2, 0.3]])
    scores_t2i = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    report = retrieval_report(scores_i2t, scores_t2i, positives=positives)
    expected = {"txt_r1": 50, "txt_r5": 100, "txt_r10": 100, "txt_r_mean": 250 / 3}
    expected |= {"img_r1": 75, "img_r5": 100, "img_r10": 100, "img_r_mean": 275 / 3, "r_mean": 87.5}
    assert report.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(report[name], value, rtol=1e-6)


def test_under_jit():
    ranks = jax.jit(retrieval_ranks, static_argnames="ties")(SCORES, POSITIVES, ties="mean")
    np.testing.assert_array_equal(ranks, retrieval_ranks(SCORES, POSITIVES, ties="mean"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: retrieval_ranks(SCORES, POSITIVES, ties="low"),
            r"retrieval_ranks: ties is 'low', expected one of 'best'",
        ),
        (
            lambda: retrieval_ranks(SCORES, POSITIVES[:, :5]),
            r"retrieval_ranks: .*scores \(20, 6\), positives \(20, 5\)",
        ),
        (lambda: retrieval_ranks(SCORES[0], POSITIVES), r"retrieval_ranks: scores has shape \(6,\), expected 2 axes"),
        (lambda: recall_fraction_at_k(SCORES, POSITIVES[:3], k=1), r"recall_fraction_at_k: .*positives \(3, 6\)"),
        (lambda: recall_at_k(SCORES, k=1), r"recall_at_k: ranks has shape \(20, 6\), expected 1 axes"),
        (lambda: retrieval_report(SCORES, SCORES, positives=POSITIVES), r"scores \(20, 6\), positives \(6, 20\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

import numpy as np
import pytest

from mmjax.metrics import (
    chunked_recall_fraction_at_k,
    chunked_retrieval,
    chunked_retrieval_ranks,
    recall_fraction_at_k,
    retrieval_ranks,
)
from mmjax.ops import cosine_similarity

RNG = np.random.default_rng(0)
# Corners of a cube: rows of length 2, cosines in quarters, computed exactly, so that ties are ties.
QUERIES = RNG.choice([-1.0, 1.0], size=(11, 4))
GALLERY = RNG.choice([-1.0, 1.0], size=(23, 4))
QUERY_GROUPS = np.arange(11) % 7
GALLERY_GROUPS = np.arange(23) % 6  # three or four captions an image; group 6 has none
POSITIVES = QUERY_GROUPS[:, None] == GALLERY_GROUPS
SCORES = np.asarray(cosine_similarity(QUERIES, GALLERY))


@pytest.mark.parametrize("ties", ["best", "worst", "mean"])
@pytest.mark.parametrize("chunk", [1, 4, 11, 1024])
def test_ranks_equal_those_of_the_matrix(chunk, ties):
    ranks = chunked_retrieval_ranks(QUERIES, GALLERY, QUERY_GROUPS, GALLERY_GROUPS, chunk=chunk, ties=ties)
    expected = retrieval_ranks(SCORES, POSITIVES, ties=ties)
    np.testing.assert_array_equal(ranks, expected)
    assert ranks.dtype == expected.dtype


@pytest.mark.parametrize("chunk", [1, 4, 11, 1024])
def test_recall_fractions_equal_those_of_the_matrix(chunk):
    ks = (1, 2, 5, 50)
    recalls = chunked_recall_fraction_at_k(QUERIES, GALLERY, QUERY_GROUPS, GALLERY_GROUPS, ks=ks, chunk=chunk)
    assert tuple(recalls) == ks
    for k in ks:
        np.testing.assert_array_equal(recalls[k], recall_fraction_at_k(SCORES, POSITIVES, k=k))


def test_the_draw_has_ties_and_a_query_without_a_positive():
    assert (retrieval_ranks(SCORES, POSITIVES) != retrieval_ranks(SCORES, POSITIVES, ties="worst")).any()
    assert not POSITIVES.any(axis=1).all()


def test_of_equal_scores_the_lower_index_comes_first_across_chunks():
    groups = np.zeros(1, int), np.array([1, 0, 1, 0, 0])
    recalls = chunked_recall_fraction_at_k(np.ones((1, 4)), np.ones((5, 4)), *groups, ks=(1, 2, 3, 4), chunk=2)
    np.testing.assert_allclose([recalls[k][0] for k in (1, 2, 3, 4)], [0, 1 / 3, 1 / 3, 2 / 3], rtol=1e-6)


def test_embeddings_without_ties():
    queries, gallery = RNG.normal(size=(9, 5)), RNG.normal(size=(14, 5))
    groups = RNG.integers(0, 4, size=9), RNG.integers(0, 4, size=14)
    expected = retrieval_ranks(cosine_similarity(queries, gallery), groups[0][:, None] == groups[1])
    np.testing.assert_array_equal(chunked_retrieval_ranks(queries, gallery, *groups, chunk=5), expected)


def test_groups_may_be_wide_integers_or_strings():
    """Ids that agree in their low 32 bits are different groups."""
    wide = QUERY_GROUPS.astype(np.int64) << 32, GALLERY_GROUPS.astype(np.int64) << 32
    names = np.char.mod("image-%d", QUERY_GROUPS), np.char.mod("image-%d", GALLERY_GROUPS)
    expected = retrieval_ranks(SCORES, POSITIVES)
    for groups in (wide, names):
        np.testing.assert_array_equal(chunked_retrieval_ranks(QUERIES, GALLERY, *groups, chunk=4), expected)


def test_nan_counts_against_the_model():
    queries = np.full((2, 4), np.nan)
    groups = np.array([0, 1]), np.array([0, 1, 1])
    np.testing.assert_array_equal(chunked_retrieval_ranks(queries, GALLERY[:3], *groups, chunk=2), [2, 1])
    recalls = chunked_recall_fraction_at_k(queries, GALLERY[:3], *groups, ks=(1, 3), chunk=2)
    np.testing.assert_array_equal(recalls[1], 0.0)
    np.testing.assert_array_equal(recalls[3], 1.0)


def largest(jaxpr):
    """Elements of the largest array that a program makes, the programs inside it included."""
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    inner = [value for equation in jaxpr.eqns for value in equation.params.values() if hasattr(value, "jaxpr")]
    return max([*sizes, *(largest(program.jaxpr) for program in inner)])


@pytest.mark.parametrize(("function", "settings"), [("_ranks", {"ties": "worst"}), ("_top_hits", {"depth": 3})])
def test_the_square_is_never_built(function, settings):
    queries, gallery, ids = np.ones((64, 2), np.float32), np.ones((96, 2), np.float32), np.arange(96)
    program = getattr(chunked_retrieval, function).trace(queries, gallery, ids[:64], ids, chunk=8, **settings).jaxpr
    assert largest(program) <= 96 * 3


def test_the_second_call_does_not_compile():
    for seed in range(2):
        queries = np.random.default_rng(seed).normal(size=(5, 3))
        chunked_retrieval_ranks(queries, queries, np.arange(5), np.arange(5) + seed, chunk=2)
        if seed == 0:
            compiled = chunked_retrieval._ranks._cache_size()
    assert chunked_retrieval._ranks._cache_size() == compiled


@pytest.mark.parametrize("function", [chunked_retrieval_ranks, chunked_recall_fraction_at_k])
@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((QUERIES, GALLERY[:, :3], QUERY_GROUPS, GALLERY_GROUPS), {}, r"queries \(11, 4\), gallery \(23, 3\)"),
        ((QUERIES, GALLERY, QUERY_GROUPS[:4], GALLERY_GROUPS), {}, r"query_groups \(4,\) for embeddings \(11, 4\)"),
        ((QUERIES, GALLERY[:0], QUERY_GROUPS, GALLERY_GROUPS[:0]), {}, r"gallery_groups \(0,\) .* at least one row"),
        ((QUERIES, GALLERY, QUERY_GROUPS, GALLERY_GROUPS), {"chunk": 0}, r"chunk is 0, expected at least 1"),
    ],
)
def test_errors(function, arguments, settings, message):
    with pytest.raises(ValueError, match=f"{function.__name__}: .*{message}"):
        function(*arguments, **settings)


def test_unknown_tie_rule():
    with pytest.raises(
        ValueError, match=r"chunked_retrieval_ranks: ties is 'low', expected one of 'best', 'worst', 'mean'"
    ):
        chunked_retrieval_ranks(QUERIES, GALLERY, QUERY_GROUPS, GALLERY_GROUPS, ties="low")

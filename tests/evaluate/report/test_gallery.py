import numpy as np

from mmjax import metrics
from mmjax.evaluate.report import gallery


def test_examples_run_from_the_narrowest_lead_and_from_the_nearest_miss():
    scores = np.array(
        [
            [0.9, 0.1, 0.2, 0.0],
            [0.6, 0.7, 0.1, 0.0],
            [0.9, 0.8, 0.7, 0.0],
            [0.5, 0.0, 0.1, 0.4],
        ]
    )
    shown = gallery(scores, np.eye(4, dtype=bool), depth=2)
    assert [r.query for r in shown.right] == [1, 0]
    assert [r.query for r in shown.wrong] == [3, 2]
    assert (shown.found, shown.listed, shown.queries, shown.items, shown.depth) == (2, 3, 4, 4, 2)


def test_hits_are_the_best_items_in_order_and_the_own_one_is_added_where_it_is_missing():
    shown = gallery(np.array([[0.3, 0.9, 0.1, 0.5]]), np.array([[False, False, True, False]]), depth=2)
    (retrieval,) = shown.wrong
    assert [(hit.item, hit.rank, hit.score, hit.right) for hit in retrieval.hits] == [
        (1, 1, 0.9, False),
        (3, 2, 0.5, False),
    ]
    assert (retrieval.missed.item, retrieval.missed.rank, retrieval.missed.score) == (2, 4, 0.1)


def test_of_several_own_items_each_is_marked_and_the_best_counts():
    shown = gallery(np.array([[0.3, 0.9, 0.8]]), np.array([[True, True, False]]), depth=3)
    assert [hit.right for hit in shown.right[0].hits] == [True, False, True]
    assert shown.right[0].missed is None


def test_a_collapsed_model_is_all_wrong():
    shown = gallery(np.zeros((3, 3)), np.eye(3, dtype=bool), depth=2)
    assert shown.right == ()
    assert shown.found == 0
    assert {retrieval.missed.rank for retrieval in shown.wrong} == {3}


def test_shares_and_ranks_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 9, 40)
    positives = np.concatenate([groups, np.arange(9)])[:, None] == np.concatenate([np.arange(9), groups])
    scores = rng.integers(0, 20, positives.shape) / 20
    ranks = np.asarray(metrics.retrieval_ranks(scores, positives, ties="worst"))
    shown = gallery(scores, positives, examples=100, depth=5)
    assert shown.found == (ranks == 0).sum()
    assert shown.listed == (ranks < 5).sum()
    for retrieval in (*shown.right, *shown.wrong):
        own = retrieval.missed or next(hit for hit in retrieval.hits if hit.right)
        assert own.rank == ranks[retrieval.query] + 1


def test_examples_are_spread_from_one_extreme_to_the_other():
    scores = np.diag(np.linspace(0.1, 1.0, 10))
    shown = gallery(scores, np.eye(10, dtype=bool), examples=4)
    assert [r.query for r in shown.right] == [0, 3, 6, 9]

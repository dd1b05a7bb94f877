"""Ranks and metrics compared with brute force, torchmetrics, scikit-learn and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score
from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank

from pairmatch.core.arrays import unit_rows
from pairmatch.core.components import label_components
from pairmatch.evaluation.ranks import TIE_TOLERANCE, query_metrics, rank_partners, recall_curve


def average_over_orders(scores, relevant, ks):
    """Mean recall@K, reciprocal rank and first rank over all orders of the tied candidates."""
    groups = [
        [i for i, s in enumerate(scores) if s == value]
        for value in sorted(set(scores), reverse=True)
    ]
    recalls = []
    reciprocals = []
    ranks = []
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = [i for group in orders for i in group]
        positions = [order.index(i) + 1 for i in relevant]
        recalls.append([sum(p <= k for p in positions) / len(relevant) for k in ks])
        reciprocals.append(1 / min(positions))
        ranks.append(min(positions))
    return np.mean(recalls, axis=0), np.mean(reciprocals), np.mean(ranks)


# Points on a coarse circle, so that scores are often exactly equal
CIRCLE = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, np.pi, 5)])


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_metrics_match_the_mean_over_all_orders_of_ties(data):
    n, m = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 6))
    a = CIRCLE[data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))]
    b = CIRCLE[data.draw(st.lists(st.integers(0, 4), min_size=m, max_size=m))]
    all_pairs = [(i, j) for i in range(n) for j in range(m)]
    matches = np.array(data.draw(st.lists(st.sampled_from(all_pairs), min_size=1, unique=True)))
    ks = (1, 2)
    forward, backward = rank_partners(unit_rows(a), unit_rows(b), matches)
    for ranks, table, pairs in (
        (forward, a @ b.T, matches),
        (backward, b @ a.T, matches[:, ::-1]),
    ):
        if ranks.candidates < 2:
            continue
        measured = query_metrics(ranks, ks)
        for row, query in enumerate(measured.queries):
            relevant = [j for i, j in pairs.tolist() if i == query]
            recall, reciprocal, rank = average_over_orders(
                np.round(table[query], 5).tolist(), relevant, ks
            )
            assert np.allclose(measured.recall[row], recall)
            assert measured.reciprocal_rank[row] == pytest.approx(reciprocal)
            assert measured.rank[row] == pytest.approx(rank)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 30),
    m=st.integers(2, 30),
    partners=st.integers(1, 3),
)
def test_metrics_agree_with_torchmetrics(seed, n, m, partners):
    rng = np.random.default_rng(seed)
    a, b = unit_rows(rng.normal(size=(n, 8))), unit_rows(rng.normal(size=(m, 8)))
    matches = np.unique(
        np.stack([rng.integers(0, n, n * partners), rng.integers(0, m, n * partners)], 1), axis=0
    )
    ks = (1, min(5, m))
    measured = query_metrics(rank_partners(a, b, matches)[0], ks)
    for row, query in enumerate(measured.queries):
        # torchmetrics treats scores of 0 and below as missing
        scores = torch.from_numpy(b @ a[query]) + 2
        if np.diff(np.sort(scores.numpy())).min() <= 2 * TIE_TOLERANCE:
            continue
        target = torch.zeros(m, dtype=torch.bool)
        target[matches[matches[:, 0] == query, 1]] = True
        for column, k in enumerate(ks):
            assert measured.recall[row, column] == pytest.approx(
                retrieval_recall(scores, target, top_k=k).item()
            )
        assert measured.reciprocal_rank[row] == pytest.approx(
            retrieval_reciprocal_rank(scores, target).item()
        )


def test_mrr_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    a, b = unit_rows(rng.normal(size=(200, 16))), unit_rows(rng.normal(size=(200, 16)))
    measured = query_metrics(rank_partners(a, b, np.repeat(np.arange(200)[:, None], 2, 1))[0], (1,))
    # With one relevant candidate per query, LRAP equals MRR
    expected = label_ranking_average_precision_score(np.eye(200), a @ b.T)
    # The tolerance allows for scores that count as tied
    assert measured.reciprocal_rank.mean() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("width", [3, 512, 2048, 777])
@pytest.mark.parametrize("people", [7, 75, 1500])
def test_constant_embeddings_score_exactly_at_chance(width, people):
    row = np.random.default_rng(width).normal(size=width)
    e = unit_rows(np.tile(row, (people, 1)))
    matches = np.repeat(np.arange(people)[:, None], 2, 1)
    for ranks in rank_partners(e, e, matches):
        measured = query_metrics(ranks, (1, 5))
        assert np.all(ranks.tied == people)
        assert measured.recall.mean(0) == pytest.approx([1 / people, 5 / people], rel=1e-12)
        assert measured.reciprocal_rank.mean() == pytest.approx(
            sum(1 / r for r in range(1, people + 1)) / people
        )
        assert np.array_equal(measured.recall, measured.chance_recall)


def test_one_sided_galleries_exclude_only_the_query_person():
    rng = np.random.default_rng(1)
    e = unit_rows(rng.normal(size=(30, 6)))
    matches = np.array([[0, 1], [0, 2], [5, 9]])
    (ranks,) = rank_partners(e, e, matches, one_sided=True)
    assert ranks.candidates == 29
    measured = query_metrics(ranks, (3,))
    partners = {0: [1, 2], 1: [0], 2: [0], 5: [9], 9: [5]}
    assert measured.queries.tolist() == sorted(partners)
    for row, query in enumerate(measured.queries):
        order = [i for i in np.argsort(-(e @ e[query])) if i != query]
        positions = [order.index(p) + 1 for p in partners[query]]
        assert measured.rank[row] == min(positions)
        assert measured.recall[row, 0] == np.mean([p <= 3 for p in positions])


def test_results_do_not_depend_on_the_chunk_size(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = unit_rows(rng.normal(size=(300, 5))), unit_rows(rng.normal(size=(400, 5)))
    matches = np.unique(np.stack([rng.integers(0, 300, 500), rng.integers(0, 400, 500)], 1), axis=0)
    expected = rank_partners(a, b, matches)
    monkeypatch.setattr("pairmatch.evaluation.ranks._CHUNK_BYTES", 4 * 400 * 7)
    for reference, chunked in zip(expected, rank_partners(a, b, matches), strict=True):
        for field in ("queries", "better", "tied"):
            assert np.array_equal(getattr(reference, field), getattr(chunked, field))


def test_recall_curve_is_recall_at_every_k():
    rng = np.random.default_rng(3)
    a, b = unit_rows(rng.integers(0, 2, (12, 3)) + 0.1), unit_rows(rng.integers(0, 2, (9, 3)) + 0.1)
    matches = np.unique(np.stack([rng.integers(0, 12, 20), rng.integers(0, 9, 20)], 1), axis=0)
    ranks = rank_partners(a, b, matches)[0]
    expected = query_metrics(ranks, tuple(range(1, 10))).recall.mean(0)
    assert np.allclose(recall_curve(ranks), expected)


def test_components_connect_linked_people():
    labels = label_components([(0, 4), (1, 4), (2, 5)], 7)
    assert labels[0] == labels[1] == labels[4]
    assert labels[2] == labels[5]
    assert len({labels[0], labels[2], labels[3], labels[6]}) == 4
    assert labels.tolist() == sorted(labels[:4].tolist()) + labels[4:].tolist()
    assert label_components(np.empty((0, 2), int), 3).tolist() == [0, 1, 2]

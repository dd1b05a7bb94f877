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
        if ranks.candidates.min() < 2:
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
    assert set(ranks.candidates.tolist()) == {29}
    measured = query_metrics(ranks, (3,))
    partners = {0: [1, 2], 1: [0], 2: [0], 5: [9], 9: [5]}
    assert measured.queries.tolist() == sorted(partners)
    for row, query in enumerate(measured.queries):
        order = [i for i in np.argsort(-(e @ e[query])) if i != query]
        positions = [order.index(p) + 1 for p in partners[query]]
        assert measured.rank[row] == min(positions)
        assert measured.recall[row, 0] == np.mean([p <= 3 for p in positions])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), one_sided=st.booleans(), coarse=st.booleans())
def test_known_pairs_are_no_candidates_of_each_other(seed, one_sided, coarse):
    """Every count equals that of a loop over the candidates that are left."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 25))
    m = n if one_sided else int(rng.integers(2, 25))
    a, b = (
        unit_rows(rng.integers(0, 3, (size, 3)) + 0.1 if coarse else rng.normal(size=(size, 3)))
        for size in (n, m)
    )
    b = a if one_sided else b
    pairs = rng.permutation([(i, j) for i in range(n) for j in range(m) if not one_sided or i < j])
    matches, known = pairs[: 1 + len(pairs) // 6], pairs[1 + len(pairs) // 6 :]
    known = known[: int(rng.integers(0, len(known) + 1))]
    scores = a @ b.T
    matched = {tuple(pair) for pair in matches.tolist()}
    left_out = {tuple(pair) for pair in known.tolist()}
    if one_sided:
        matched |= {pair[::-1] for pair in matched}
        left_out |= {pair[::-1] for pair in left_out} | {(i, i) for i in range(n)}
    for direction, ranks in enumerate(
        rank_partners(a, b, matches, one_sided=one_sided, known=known)
    ):
        expected = []
        for i, j in matched:
            row = scores[i] if direction == 0 else scores[:, j]
            pair_with = (lambda c, i=i: (i, c)) if direction == 0 else (lambda c, j=j: (c, j))
            left = [s for c, s in enumerate(row) if pair_with(c) not in left_out]
            above = sum(s > scores[i, j] + TIE_TOLERANCE for s in left)
            tied = sum(abs(s - scores[i, j]) <= TIE_TOLERANCE for s in left)
            expected.append(((i, j)[direction], above, tied, len(left)))
        columns = (ranks.queries, ranks.better, ranks.tied, ranks.candidates)
        assert sorted(zip(*(column.tolist() for column in columns), strict=True)) == sorted(
            expected
        )


def test_chance_of_galleries_of_different_sizes():
    """People whose partners are known have fewer candidates, and a better chance."""
    e = unit_rows(np.ones((8, 2)))
    matches = np.array([[0, 0], [1, 1], [2, 2], [2, 3]])
    known = np.array([[0, 4], [0, 5], [2, 6]])
    measured = query_metrics(rank_partners(e, e, matches, known=known)[0], (1, 7))
    assert measured.chance_recall.tolist() == [[1 / 6, 1], [1 / 8, 7 / 8], [1 / 7, 1]]
    assert measured.chance_rank.tolist() == [3.5, 4.5, 8 / 3]
    assert np.array_equal(measured.recall, measured.chance_recall)
    single = [sum(1 / r for r in range(1, n + 1)) / n for n in (6, 8)]
    assert measured.chance_reciprocal_rank[:2] == pytest.approx(single)
    two_of_seven = np.mean([1 / min(order) for order in itertools.permutations(range(1, 8), 2)])
    assert measured.chance_reciprocal_rank[2] == pytest.approx(two_of_seven)


def test_results_do_not_depend_on_the_chunk_size(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = unit_rows(rng.normal(size=(300, 5))), unit_rows(rng.normal(size=(400, 5)))
    matches = np.unique(np.stack([rng.integers(0, 300, 500), rng.integers(0, 400, 500)], 1), axis=0)
    known = np.setdiff1d(np.arange(0, 120_000, 7), matches @ [400, 1])
    known = np.stack(np.divmod(known, 400), axis=1)
    expected = rank_partners(a, b, matches, known=known)
    monkeypatch.setattr("pairmatch.evaluation.ranks._CHUNK_BYTES", 4 * 400 * 7)
    in_chunks = rank_partners(a, b, matches, known=known)
    for reference, chunked in zip(expected, in_chunks, strict=True):
        for field in ("queries", "better", "tied", "candidates"):
            assert np.array_equal(getattr(reference, field), getattr(chunked, field))


@pytest.mark.parametrize("one_sided", [False, True])
def test_results_do_not_depend_on_the_number_of_threads(one_sided):
    rng = np.random.default_rng(5)
    vectors = rng.integers(-2, 3, (700, 4))  # many ties; 700 rows are several strips
    vectors[:, 0] = 1
    e_a, e_b = unit_rows(vectors[:400]), unit_rows(vectors[400:])
    sides = (e_a, e_a) if one_sided else (e_a, e_b)
    matches = np.unique(np.sort(rng.integers(0, 300, (500, 2)), axis=1), axis=0)
    matches = matches[matches[:, 0] != matches[:, 1]]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 16):
            torch.set_num_threads(threads)
            results.append(rank_partners(*sides, matches, one_sided=one_sided))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert np.array_equal(one.better, other.better)
            assert np.array_equal(one.tied, other.tied)


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

"""Standard errors over people, compared with double loops over links; couples keep clusters."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmatch import Evaluator
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.evaluation.comparison import compare, paired_test, standard_errors
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.intervals import summarize
from pairmatch.evaluation.links import Links
from pairmatch.evaluation.query_table import QueryTable, embed_sides, rank_queries


def random_log(seed, people=60, matches=180, one_sided=False, groups=None):
    """Features with a planted taste, and random matches among people of similar taste."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(people, 6))
    b = rng.normal(size=(people, 6))
    wishes = a @ (a if one_sided else b).T + rng.gumbel(size=(people, people))
    if one_sided:
        wishes[np.tril_indices(people)] = -np.inf
    best = np.argsort(-wishes.ravel())[:matches]
    pairs = np.stack(np.unravel_index(best, wishes.shape), axis=1)
    return PairedFeatures.of(a, None if one_sided else b, matches=pairs, groups=groups)


def table_of(data):
    return rank_queries(data, *embed_sides(data), (1, 10)).table


def variance_by_loops(table, values):
    """The sum of products of deviations over all pairs of links that share a person."""
    parts = []
    for row, value in enumerate(values):
        units = table.links.units[table.links.starts[row] : table.links.starts[row + 1]]
        for pair in units.tolist():
            parts.append((set(pair), (value - np.mean(values)) / len(values) / len(units)))
    return sum(u * v for (p, u), (q, v) in itertools.product(parts, parts) if p & q)


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_variance_counts_each_pair_of_links_that_share_a_person(one_sided):
    groups = [None, "home"] + [None] * 88 + ["home"] + [None] * 89
    for seed, given_groups in ((0, None), (1, groups)):
        table = table_of(random_log(seed, one_sided=one_sided, groups=given_groups))
        values = np.stack([table.metric("MRR"), table.metric("R@10")], axis=1)
        errors, _ = table.links.standard_errors(values)
        expected = [variance_by_loops(table, column) for column in values.T]
        assert np.square(errors) == pytest.approx(expected)


def value(scores, partners, gallery, k):
    """Reciprocal rank of the best partner and recall at k, among the candidates of a gallery."""
    ahead = [sum(scores[c] > scores[p] for c in gallery if c != p) for p in partners]
    return 1 / (1 + min(ahead)), np.mean([count < k for count in ahead])


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("pools", [False, True])
def test_a_candidate_pushes_by_the_difference_that_it_makes(one_sided, pools):
    """Every candidate is removed from the gallery, and entered twice, in plain loops."""
    data = random_log(4, people=20, matches=150 if pools else 50, one_sided=one_sided)
    room_of = np.arange(20) % 2 if pools else np.zeros(20, int)
    if pools:
        kept = data.matches[room_of[data.matches[:, 0]] == room_of[data.matches[:, 1]]]
        rooms = [f"room {room_of[a]}" for a, _ in kept]
        both = [[f"room {room}"] for room in room_of]
        given = Pools.of(kept, rooms, a=both, b=() if one_sided else both, one_sided=one_sided)
        data = PairedFeatures.of(data.a, data.b, matches=kept, pools=given)
    e_a, e_b = embed_sides(data)
    table = rank_queries(data, e_a, e_b, (1, 5)).table
    people = data.units
    expected = np.zeros((len(people), 2))
    forward, backward = data.matches, data.matches[:, ::-1]
    directions = [(20, e_a @ e_b.T, forward), (0, e_b @ e_a.T, backward)]
    if one_sided:
        directions = [(0, e_a @ e_b.T, np.concatenate([forward, backward]))]
    for first, scores, links in directions:
        for query in np.unique(links[:, 0]):
            partners = links[links[:, 0] == query, 1].tolist()
            gallery = [c for c in range(20) if room_of[c] == room_of[query]]
            gallery = [c for c in gallery if not one_sided or c != query]
            for c in gallery:
                never, once, twice = (
                    value(scores[query], partners, others, 5)
                    for others in ([d for d in gallery if d != c], gallery, [*gallery, c])
                )
                expected[first + c, 0] += (once[0] - never[0]) / len(table)
                expected[first + c, 1] += (twice[1] - never[1]) / 2 / len(table)
    for first in (0,) if one_sided else (0, 20):
        for room in np.unique(room_of):
            members = first + np.flatnonzero(room_of == room)
            expected[members] -= expected[members].mean(0)
    units, amounts = table.links.pushes(["MRR", "R@5", "anything else"])
    assert sorted(units) == sorted(people)
    assert amounts[np.argsort(units), :2] == pytest.approx(expected[np.argsort(people)], abs=1e-6)
    assert not amounts[:, 2].any()


def test_candidates_widen_intervals_of_hubs():
    rng = np.random.default_rng(9)
    data = random_log(9, people=80, matches=400)
    hubs = data.b + 2 * rng.exponential(size=(80, 1)) * np.eye(6)[0]
    shifted = data.a + 2 * np.eye(6)[0]
    table = table_of(PairedFeatures.of(shifted, hubs, matches=data.matches))
    values = table.metric("MRR")[:, None]
    plain, freedom = table.links.standard_errors(values)
    errors, same_freedom = table.links.standard_errors(values, table.links.pushes(["MRR"]))
    assert freedom == same_freedom
    assert plain * 1.05 < errors < 3 * plain
    low, high = summarize(table).mrr_interval
    assert (high - low) / 2 / errors[0] == pytest.approx(2, abs=0.05)  # Student's factor


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_the_variance_is_that_of_shared_people_but_at_least_that_of_links(seed, people, links):
    rng = np.random.default_rng(seed)
    pairs = np.unique(rng.integers([0, people], [people, 2 * people], (links, 2)), axis=0)
    values = rng.random((len(pairs), 1))
    by_link = Links(np.arange(len(pairs) + 1), pairs)
    (error,), freedom = by_link.standard_errors(values)
    u = (values[:, 0] - values.mean()) / len(pairs)
    shared = (pairs[:, None, :] == pairs[None]).any(-1)
    assert error**2 == pytest.approx(max(u @ shared @ u, u @ u), abs=1e-12)
    assert 1 <= freedom <= max(people - 1, 1)


def test_directions_and_repeats_of_a_link_are_one_observation():
    data = random_log(2)
    table = table_of(data)
    twice = QueryTable.concatenate([table, table])
    values = table.metric("MRR")[:, None]
    once = table.links.standard_errors(values)
    again = twice.links.standard_errors(np.concatenate([values, values]))
    assert again[0] == pytest.approx(once[0])
    assert again[1] == pytest.approx(once[1])


def test_rows_are_selected_with_their_links():
    table = table_of(random_log(3))
    order = np.random.default_rng(0).permutation(len(table))[:20]
    chosen = table.select(order)
    for row, source in enumerate(order):
        start, stop = table.links.starts[source : source + 2]
        kept = slice(*chosen.links.starts[row : row + 2])
        np.testing.assert_array_equal(chosen.links.units[kept], table.links.units[start:stop])
    masked = table.select(table["direction"] == 1)
    assert len(masked.links) == len(masked)
    assert len(masked.links.units) == 180


def test_couples_keep_the_intervals_and_tests_of_clusters():
    rng = np.random.default_rng(5)
    a = rng.normal(size=(40, 8))
    b = 0.6 * a + 0.8 * rng.normal(size=(40, 8))
    evaluation = Evaluator(ks=(5,)).evaluate(PairedFeatures.of(a, b))
    assert evaluation.table.clusters() is evaluation.table["component"]
    # Figures from before links existed
    assert evaluation.both.mrr_interval == pytest.approx((0.4273945923, 0.6850409830), abs=1e-6)
    assert evaluation.both.recall_interval[5] == pytest.approx((0.58749997, 0.8625), abs=1e-7)
    assert evaluation.both.median_rank_interval == (1.0, 4.0)
    assert not evaluation.notes
    result = cross_validate(
        PairedFeatures.of(a, b), ["frozen", "centred"], repeats=2, folds=4, ks=(5,)
    )
    assert result.metrics("centred").mrr_interval == pytest.approx(
        (0.6467392667, 0.8482352438), abs=1e-6
    )
    assert "intervals and tests are over people" not in " ".join(result.notes)
    one_more = np.array([*((i, i) for i in range(40)), (0, 1)])
    joined = Evaluator(ks=(5,)).evaluate(PairedFeatures.of(a, b, matches=one_more)).both
    assert joined.mrr_interval == pytest.approx((0.4326859013, 0.6826171857), abs=1e-6)


def test_queries_that_share_a_pool_are_one_cluster():
    couples = Links(np.arange(61), np.stack([np.arange(60), 60 + np.arange(60)], axis=1))
    alone = np.arange(60)
    assert couples.clusters(alone) is alone
    pools = np.array([f"event {number // 5}" for number in range(60)])
    assert couples.clusters(alone, pools).tolist() == (alone // 5).tolist()
    few = np.array([f"event {number // 20}" for number in range(60)])
    assert couples.clusters(alone, few) is alone
    unknown = np.full(60, "")
    assert couples.clusters(alone, unknown) is alone


def test_a_connected_log_gets_intervals_over_people():
    data = random_log(6)
    assert np.bincount(data.components).max() > 170  # of 180 matches
    evaluation = Evaluator().evaluate(data)
    assert any("intervals and tests are over people of both sides" in n for n in evaluation.notes)
    for metrics in (evaluation.both, evaluation.a_to_b):
        low, high = metrics.mrr_interval
        assert 0 < low < metrics.mrr < high < 1
        assert 0.05 < high - low < 0.3
        low, high = metrics.median_rank_interval
        assert low <= metrics.median_rank <= high
        assert low < high < 30
    plain = summarize(evaluation.table, resamples=0)
    assert plain.mrr == evaluation.both.mrr
    assert plain.mrr_interval is None
    wider = summarize(evaluation.table, confidence=0.99).mrr_interval
    assert wider[0] < evaluation.both.mrr_interval[0]


def test_learners_are_compared_on_a_connected_log():
    data = random_log(7, people=80, matches=400)
    result = cross_validate(data, ["frozen", "popularity"], repeats=2, folds=3, ks=(5,))
    comparison = result.compare("frozen", "popularity")
    low, high = comparison.interval
    assert 0 < low < comparison.difference < high
    assert comparison.p_value < 0.001
    assert result.compare("popularity", "frozen").interval == pytest.approx((-high, -low))
    assert result.compare("frozen", "frozen").p_value == 1
    assert comparison.clusters == result.chance.links.independent
    assert any("intervals and tests are over people of both sides" in n for n in result.notes)


def test_repeats_by_people_are_not_taken_for_independent():
    """Components of test blocks are small, but the same people are tested in every repeat."""
    data = random_log(8, people=80, matches=160)
    result = cross_validate(data, ["frozen"], repeats=8, folds=2, ks=(5,))
    table = result.table("frozen")
    assert len(np.unique(table["component"])) >= 40
    assert isinstance(table.clusters(), Links)
    error = standard_errors(table, table.metric("MRR")[:, None])
    few = table.select(table["repeat"] < 2)
    # More repeats cannot shrink the error much
    assert error > 0.7 * standard_errors(few, few.metric("MRR")[:, None])


def test_the_test_over_people_is_students():
    """With one link per row and person, it is the ordinary t-test of paired differences."""
    from scipy.stats import ttest_1samp

    gains = np.random.default_rng(3).normal(0.2, 1, 30)
    links = Links(np.arange(31), np.stack([np.arange(30), 30 + np.arange(30)], axis=1))
    ours = paired_test(gains, np.zeros(30), links)
    theirs = ttest_1samp(gains, 0)
    assert ours.clusters == 30
    scale = np.sqrt(29 / 30)  # the variance of the links divides by n, not n − 1
    assert ours.difference / (ours.interval[1] - ours.difference) == pytest.approx(
        theirs.statistic / scale / 2.045, rel=1e-3
    )
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=0.2)


def test_the_interval_of_the_median_rank_holds_the_median():
    a = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, -1.0]])
    b = np.array([[1.0, 1.0], [1.0, 0.0]])
    data = PairedFeatures.of(a, b, matches=[(0, 0), (0, 1), (2, 0), (2, 1)])
    metrics = Evaluator(ks=[1]).evaluate(data).both
    low, high = metrics.median_rank_interval
    assert low <= metrics.median_rank <= high


def test_a_star_is_one_observation():
    a, b = np.eye(4, 8), np.eye(8)
    data = PairedFeatures.of(a, b, matches=[(0, i) for i in range(8)])
    table = rank_queries(data, *embed_sides(data), (1,)).table
    assert not isinstance(table.clusters(), Links)
    with pytest.raises(ValueError, match="at least two clusters"):
        compare(table, table, metric="R@1")


@pytest.mark.slow
def test_intervals_of_logs_cover_and_tests_keep_their_level():
    """500 logs of 100 + 100 people with 2 matches per person; two equally good noisy scorers.

    The standard error of a share of 0.95 is 0.01.
    """
    measured, alarms = [], []
    for seed in range(500):
        data = random_log(seed, people=100, matches=200)
        rng = np.random.default_rng(10**6 + seed)
        tables = []
        for _ in range(2):
            noisy = [side + rng.normal(size=side.shape) for side in (data.a, data.b)]
            tables.append(table_of(PairedFeatures.of(*noisy, matches=data.matches)))
        assert isinstance(tables[0].clusters(), Links)
        measured.append(summarize(tables[0]))
        alarms.append([compare(*tables, metric=name).p_value < 0.05 for name in ("MRR", "R@10")])
    for values, intervals in (
        ([m.mrr for m in measured], [m.mrr_interval for m in measured]),
        ([m.recall[10] for m in measured], [m.recall_interval[10] for m in measured]),
        ([m.median_rank for m in measured], [m.median_rank_interval for m in measured]),
    ):
        truth = np.mean(values)
        low, high = np.transpose(intervals)
        assert 0.91 <= np.mean((low <= truth) & (truth <= high)) <= 0.99
    assert (np.mean(alarms, axis=0) < 0.09).all()


@pytest.mark.parametrize("clusters", [1, 2, 3, 5])
def test_few_clusters_have_students_intervals(clusters):
    """With clusters of equal size, it is the interval of scipy for the means of the clusters."""
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(clusters)
    label = np.repeat(np.arange(clusters), 4)
    rank = rng.integers(2, 9, len(label)).astype(float)
    columns = {
        "direction": np.zeros(len(rank), np.int64),
        "query": np.arange(len(rank)),
        "component": label,
        "candidates": np.full(len(rank), 20),
        "reciprocal_rank": 1 / rank,
        "rank": rank,
        "recall_at_5": (rank <= 5).astype(float),
    }
    metrics = summarize(QueryTable((5,), columns))
    if clusters == 1:
        assert metrics.mrr_interval is None
        assert not metrics.recall_interval
        return
    means = (1 / rank).reshape(clusters, 4).mean(1)
    expected = ttest_1samp(means, 0).confidence_interval(0.95)
    bounds = max(expected.low, 0), min(expected.high, 1)
    assert metrics.mrr_interval == pytest.approx(bounds)
    low, high = metrics.median_rank_interval
    assert low <= metrics.median_rank <= high
    test = paired_test(1 / rank, np.zeros(len(rank)), label)
    assert test.interval == pytest.approx((expected.low, expected.high))
    errors = standard_errors(QueryTable((5,), columns), (1 / rank)[:, None])
    assert errors[0] == pytest.approx(means.std(ddof=1) / np.sqrt(clusters))

"""Paired tests compared with enumeration and closed testing, and their printed sentences."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmatch import Evaluator
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.comparison import compare, corrected, holm, paired_test
from pairmatch.evaluation.query_table import QueryTable


def table(values, clusters=None):
    """A table whose reciprocal rank and recall at 10 are the given values."""
    rows = np.arange(len(values))
    columns = {
        "direction": np.zeros(len(values), int),
        "query": rows,
        "component": rows if clusters is None else clusters,
        "candidates": np.full(len(values), 50),
        "recall_at_10": values,
        "reciprocal_rank": values,
        "rank": np.ones(len(values)),
    }
    return QueryTable((10,), columns)


def test_the_randomization_test_swaps_whole_clusters():
    rng = np.random.default_rng(0)
    clusters = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5])
    ours = rng.random(10)
    theirs = rng.random(10)
    gain = np.bincount(clusters, ours - theirs)
    sums = np.array([np.dot(gain, signs) for signs in itertools.product((1, -1), repeat=6)])
    expected = min(
        1, 2 * min((sums >= gain.sum() - 1e-12).mean(), (sums <= gain.sum() + 1e-12).mean())
    )
    comparison = paired_test(ours, theirs, clusters)
    assert comparison.p_value == pytest.approx(expected)
    assert comparison.difference == pytest.approx((ours - theirs).mean())
    assert comparison.clusters == 6
    assert comparison.interval[0] < comparison.difference < comparison.interval[1]


def test_the_interval_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(1)
    gain = rng.normal(0.1, 1, 400)
    comparison = paired_test(gain, np.zeros(400), np.arange(400))
    half = 1.96 * gain.std(ddof=1) / 20
    assert comparison.interval == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.02)
    repeated = paired_test(np.repeat(gain, 3), np.zeros(1200), np.repeat(np.arange(400), 3))
    # Repeated queries of the same person add no evidence
    assert repeated.interval == pytest.approx(comparison.interval, abs=0.01)


def test_identical_rankings_do_not_differ():
    same = np.random.default_rng(0).random(30)
    comparison = compare(table(same), table(same))
    assert (comparison.difference, comparison.interval, comparison.p_value) == (0, (0, 0), 1)
    assert str(comparison) == "this and the other do not differ in MRR."


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_closed_testing_with_bonferroni(p_values):
    """Closed testing rejects a hypothesis if Bonferroni rejects all intersections with it."""
    indices = range(len(p_values))
    expected = [
        max(
            min(1, len(group) * min(p_values[j] for j in group))
            for size in range(1, len(p_values) + 1)
            for group in itertools.combinations(indices, size)
            if i in group
        )
        for i in indices
    ]
    np.testing.assert_allclose(holm(p_values), expected)


def test_sentences_describe_the_result():
    rng = np.random.default_rng(2)
    gain = rng.normal(0.06, 0.2, 300)
    comparison = compare(
        table(gain), table(np.zeros(300)), name="trained", baseline="frozen", metric="R@10"
    )
    assert str(comparison).startswith(
        f"trained is better than frozen by {100 * gain.mean():.1f} points of R@10, 95 % interval "
    )
    assert str(comparison).endswith("p < 0.001.")
    both = corrected(
        [comparison, compare(table(-gain), table(np.zeros(300)), name="x", baseline="y")]
    )
    assert "x is worse than y by 0.0" in str(both[1])
    low, high = both[1].interval
    assert high < 0
    assert f"interval −{-low:.3f} to −{-high:.3f}, p < 0.001" in str(both[1])
    assert "(corrected for 2 comparisons)" in str(both[0])
    assert both[0].to_dict()["corrected_for"] == 2


def test_evaluations_of_the_same_queries_can_be_compared():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(50, 8))
    b = a + 0.5 * rng.normal(size=(50, 8))
    good = Evaluator(ks=(5,)).evaluate_arrays(a, b, frozen_a=b[::-1].copy(), frozen_b=a)
    comparison = good.compare(good.frozen, metric="R@5", name="trained", baseline="frozen")
    assert comparison.difference == pytest.approx(good.both.recall[5] - good.frozen.both.recall[5])
    assert comparison.p_value < 0.01
    with pytest.raises(ConfigurationError, match="two rankings of the same queries"):
        good.compare(Evaluator(ks=(5,)).evaluate_arrays(a[:40], b[:40]))
    with pytest.raises(ConfigurationError, match=r"R@7.*MRR"):
        good.compare(good.frozen, metric="R@7")


def test_invalid_comparisons_are_errors():
    with pytest.raises(
        ConfigurationError, match="one value of each ranking, and one cluster, per query"
    ):
        paired_test(np.zeros(3), np.zeros(4), np.arange(3))
    with pytest.raises(ConfigurationError, match="at least two clusters"):
        paired_test(np.zeros(3), np.ones(3), np.zeros(3, int))

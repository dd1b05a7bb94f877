"""The median rank of mixtures of distributions, against enumeration and simulation."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest

from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.evaluator import Evaluator
from pairmatch.evaluation.medians import POINTS, median_rank, rank_points


def enumerated(cases):
    """The median over all queries and all equally likely sets of positions of tied partners."""
    shares = {}
    for ahead, tied, partners in cases:
        for positions in combinations(range(1, tied + 1), partners):
            rank = ahead + positions[0]
            share = Fraction(1, comb(tied, partners) * len(cases))
            shares[rank] = shares.get(rank, 0) + share
    total = Fraction(0)
    lower = None
    for rank, share in sorted(shares.items()):
        total += share
        if lower is None and total >= Fraction(1, 2):
            lower = rank
        if total > Fraction(1, 2):
            return (lower + rank) / 2
    raise AssertionError


@pytest.mark.parametrize(
    "cases",
    [
        [(0, 10, 1)],  # the ranks 1 … 10, all equally likely: 5.5
        [(0, 9, 1)],
        [(0, 6, 2)],
        [(0, 8, 8)],  # all candidates are partners
        [(0, 7, 1), (0, 7, 3)],
        [(0, 7, 1), (0, 7, 1), (0, 7, 5), (3, 4, 2)],
        [(3, 1, 1), (9, 1, 1)],  # no ties: the median of 4 and 10
        [(0, 1, 1), (0, 12, 4), (5, 2, 2), (2, 6, 1), (8, 1, 1)],
    ],
)
def test_the_median_is_that_of_all_orders(cases):
    columns = np.array(cases, np.float64).T
    assert median_rank(*columns) == enumerated(cases)


def test_without_ties_it_is_the_median():
    ahead = np.random.default_rng(0).integers(0, 50, 101).astype(np.float64)
    for ranks in (ahead, ahead[:100]):
        ones = np.ones(len(ranks))
        assert median_rank(ranks, ones, ones) == np.median(ranks + 1)


def test_chance_with_several_partners_is_what_random_vectors_reach():
    """Two thirds of the queries have one partner among 600, the others eight."""
    rng = np.random.default_rng(0)
    matches = [(i, i) for i in range(600)]
    matches += [(i, (i + 17 * n) % 600) for i in range(200) for n in range(1, 8)]
    evaluations = [
        Evaluator(ks=[5], resamples=0).evaluate(
            PairedFeatures.of(
                rng.normal(size=(600, 4)).astype(np.float32),
                rng.normal(size=(600, 4)).astype(np.float32),
                matches=np.array(matches),
            )
        )
        for _ in range(30)
    ]
    medians = [evaluation.both.median_rank for evaluation in evaluations]
    chance = evaluations[0].chance.median_rank
    error = np.std(medians) / np.sqrt(len(medians))
    assert abs(np.mean(medians) - chance) < 4 * error
    expected = evaluations[0].chance_table["rank"]
    assert abs(np.mean(medians) - np.median(expected)) > 20 * error  # the median of expectations


def test_constant_embeddings_have_the_median_rank_of_chance():
    matches = np.array([(i, j) for i in range(30) for j in {i, (i * i) % 30, (7 * i) % 30}])
    ones = np.ones((30, 2), np.float32)
    data = PairedFeatures.of(ones, ones, matches=matches, groups=None)
    evaluation = Evaluator(ks=[5], resamples=200).evaluate(data)
    assert evaluation.both.median_rank == evaluation.chance.median_rank
    low, high = evaluation.both.median_rank_interval
    assert low <= evaluation.both.median_rank <= high


def test_points_have_the_distribution_of_the_ranks():
    points = rank_points(np.array([5.0, 0.0, 2.0]), np.array([1.0, 32.0, 9.0]), np.array([1, 1, 9]))
    assert points[0].tolist() == [6] * POINTS
    assert points[1].tolist() == list(np.arange(1, 33, 2))
    assert points[2].tolist() == [3] * POINTS  # all nine are partners: the first is always first
    several = rank_points(np.array([0.0]), np.array([40.0]), np.array([3.0]))[0]
    ranks = np.sort([min(c) for c in combinations(range(1, 41), 3)])
    levels = (np.arange(POINTS) + 0.5) / POINTS
    assert several.tolist() == np.quantile(ranks, levels, method="inverted_cdf").tolist()

"""Coverage of intervals and level of tests, on simulated pairs whose true metrics are known.

    python benchmarks/coverage.py [--repetitions 500] [--data couples|logs|answers|few ...]

Prints the share of 95 % intervals that contain the true value (the mean over many fresh draws of
the same size), for the evaluation of one test set and for cross-validation; and how often two
equally good learners are found to differ at the 5 % level. The same for logs, in which people stand
in several pairs: the true value is that of new people, matches and galleries of the same size, with
the same scorer, and the mean of all repetitions stands for it; resampling people of both sides is
measured with it. The same for the AUC of answers without pools, and for few clusters of queries
that are alike, such as a handful of events.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from resampling import draw_weights, pigeonhole, sign_flips

from pairmatch import Evaluator
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.evaluation.auc import ScoredDecisions, summarize_auc
from pairmatch.evaluation.comparison import candidate_pushes, compare
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.intervals import summarize
from pairmatch.evaluation.links import Links
from pairmatch.evaluation.query_table import QueryTable, embed_sides, rank_queries
from pairmatch.learning.baselines import Centred

TRUTH_DRAWS = 1500
WIDTH = 32
KINDS = ("couples", "logs", "answers", "few")
TASTES = 8
#: People per side, matches per person, and spread of log popularity of the simulated logs.
LOGS = [(1000, 1.2, 0.0), (1000, 2.0, 0.0), (300, 2.0, 1.0), (300, 2.0, 1.5), (300, 8.0, 0.5)]
#: The same with the number of pools, of which each person belongs to two, in the third place.
POOLS = [(300, 3.0, 8), (300, 3.0, 20)]
RESAMPLES = 200


def draw(rng, pairs, likeness, hubs):
    """Features of pairs whose partners correlate by `likeness`.

    All people share a direction of length `hubs`, which creates hubs.
    """
    a = rng.normal(size=(pairs, WIDTH))
    b = likeness * a + np.sqrt(1 - likeness**2) * rng.normal(size=(pairs, WIDTH))
    a[:, 0] += hubs
    b[:, 0] += hubs
    return a, b


class HalfHead(ProjectionHead):
    """Some of the dimensions, minus the mean of each side."""

    trainable = False

    def __init__(self, dimensions, mean_a, mean_b):
        super().__init__()
        self.dimensions = dimensions
        self.width = len(mean_a)
        self.means = {"a": torch.from_numpy(mean_a), "b": torch.from_numpy(mean_b)}

    def project(self, h, side):
        return h[:, self.dimensions] - self.means[side]


class Half(Learner):
    """Cosine on one half of the dimensions, after subtracting the means.

    Learners of the two halves are equally good.
    """

    def __init__(self, first: bool) -> None:
        self.first = first

    def fit(self, train, validation=None, *, seed=0):
        middle = train.dim // 2
        dimensions = slice(middle) if self.first else slice(middle, None)
        means = [side[:, dimensions].mean(0) for side in (train.a, train.b)]
        return FittedHead(HalfHead(dimensions, *means).eval())


def one_test_set(repetitions, pairs, likeness, hubs):
    """True R@10 and MRR of one test set, and the coverage of their intervals."""

    def evaluate(seed, resamples):
        a, b = draw(np.random.default_rng(seed), pairs, likeness, hubs)
        return Evaluator(ks=(10,), resamples=resamples, seed=seed).evaluate_arrays(a, b).both

    truths = [evaluate(10**6 + seed, 0) for seed in range(TRUTH_DRAWS)]
    return coverage(truths, (evaluate(seed, 1000) for seed in range(repetitions)))


def cross_validated(repetitions, pairs, likeness, hubs):
    """True R@10 and MRR of cross-validation, and the coverage of their intervals."""

    def run(seed, repeats):
        data = PairedFeatures.of(*draw(np.random.default_rng(seed), pairs, likeness, hubs))
        return cross_validate(data, {"centred": Centred()}, repeats=repeats, ks=(10,), seed=seed)

    truths = [run(10**6 + seed, 1).metrics("centred", resamples=0) for seed in range(TRUTH_DRAWS)]
    return coverage(truths, (run(seed, 3).metrics("centred") for seed in range(repetitions)))


def coverage(truths, measured):
    """Mean R@10 and MRR of `truths`, and the share of measured intervals that contain each."""
    recall = np.mean([metrics.recall[10] for metrics in truths])
    mrr = np.mean([metrics.mrr for metrics in truths])
    hits = [
        (
            contains(metrics.recall_interval[10], recall),
            contains(metrics.mrr_interval, mrr),
        )
        for metrics in measured
    ]
    return recall, mrr, np.mean(hits, axis=0)


def contains(interval, value):
    return interval[0] <= value <= interval[1]


def false_alarms(repetitions, pairs, likeness):
    """Share of tests of equal learners below 5 %, and coverage of 0, for R@10 and MRR."""
    alarms = np.zeros(2)
    covered = np.zeros(2)
    learners = {"first": Half(True), "second": Half(False)}
    for seed in range(repetitions):
        data = PairedFeatures.of(*draw(np.random.default_rng(seed), pairs, likeness, 0.5))
        result = cross_validate(data, learners, repeats=3, ks=(10,), seed=seed)
        for column, metric in enumerate(("R@10", "MRR")):
            comparison = result.compare("first", "second", metric=metric)
            alarms[column] += comparison.p_value < 0.05
            covered[column] += contains(comparison.interval, 0)
    return alarms / repetitions, covered / repetitions


def draw_log(rng, people, per_person, spread):
    """Tastes of both sides, and matches among people who like each other or are popular.

    Popularity is log-normal: with a spread of 1.5, the most popular of 300 people stand in up to a
    tenth of all matches.
    """
    tastes = rng.normal(size=(2, people, TASTES))
    popular = spread * rng.normal(size=(2, people))
    wishes = 2 * tastes[0] @ tastes[1].T / np.sqrt(TASTES) + popular[0][:, None] + popular[1]
    wishes += rng.gumbel(size=wishes.shape)
    best = np.argpartition(-wishes.ravel(), int(per_person * people))
    matches = np.unravel_index(best[: int(per_person * people)], wishes.shape)
    return tastes, np.stack(matches, axis=1)


def noisy(rng, tastes):
    """What a scorer sees: everybody's taste with noise, and a hub of its own."""
    seen = tastes + rng.normal(size=tastes.shape)
    seen[:, :, 0] += 0.3
    return seen


def rank_log(rng, people, per_person, spread):
    """A log, and the tables of two equally good scorers."""
    tastes, matches = draw_log(rng, people, per_person, spread)
    return rank_twice(rng, tastes, matches)


def rank_twice(rng, tastes, matches, pools=None):
    tables = []
    for _ in range(2):
        data = PairedFeatures.of(*noisy(rng, tastes), matches=matches, pools=pools)
        tables.append(rank_queries(data, *embed_sides(data), (10,)).table)
    return data, tables


def rank_pools(rng, people, per_person, pools):
    """A log of people who each belong to two pools, and whose matches are inside a pool."""
    tastes = rng.normal(size=(2, people, TASTES))
    member = [np.stack([rng.permutation(people) % pools for _ in range(2)]) for _ in range(2)]
    wishes = 2 * tastes[0] @ tastes[1].T / np.sqrt(TASTES) + rng.gumbel(size=(people, people))
    shared = np.full((people, people), -1)
    for a in member[0]:
        for b in member[1]:
            shared = np.where((shared < 0) & (a[:, None] == b), a[:, None], shared)
    wishes[shared < 0] = -np.inf
    best = np.argpartition(-wishes.ravel(), int(per_person * people))
    matches = np.stack(np.unravel_index(best[: int(per_person * people)], wishes.shape), axis=1)
    names = [[[f"pool {pool}" for pool in person] for person in side.T] for side in member]
    of_pairs = [f"pool {shared[a, b]}" for a, b in matches]
    return rank_twice(rng, tastes, matches, Pools.of(matches, of_pairs, a=names[0], b=names[1]))


def cross_validate_log(rng, people, per_person, spread):
    """Two equally good learners of a log, by folds of people of both sides."""
    tastes, matches = draw_log(rng, people, per_person, spread)
    data = PairedFeatures.of(*noisy(rng, tastes), matches=matches)
    learners = {"first": Half(True), "second": Half(False)}
    result = cross_validate(data, learners, by="people", repeats=2, folds=3, ks=(10,))
    return data, list(result.tables.values())


def logs(repetitions, draw_tables, setting):
    """Coverage of 95 % intervals and share of alarms at 5 % on random logs, by method.

    Coverage is that of R@10, MRR and the median rank, by standard errors and by the pigeonhole
    bootstrap; alarms are those for R@10 and MRR, by these and by two kinds of sign flips.
    """
    values, intervals, alarms = [], [], []
    for seed in range(repetitions):
        rng = np.random.default_rng([seed, *(int(10 * value) for value in setting)])
        data, tables = draw_tables(rng, *setting)
        metrics = summarize(tables[0])
        assert isinstance(tables[0].clusters(), Links)
        values.append([metrics.recall[10], metrics.mrr, metrics.median_rank])
        weights = draw_weights(rng, data, RESAMPLES)
        drawn = [pigeonhole(table, weights) for table in tables]
        bounds = [
            (metrics.recall_interval[10], metrics.mrr_interval, metrics.median_rank_interval),
            np.quantile(drawn[0], [0.025, 0.975], axis=1).T,
        ]
        intervals.append(bounds)
        low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975], axis=1)
        found = []
        for column, metric in enumerate(("R@10", "MRR")):
            difference = tables[0].metric(metric) - tables[1].metric(metric)
            pushes = candidate_pushes(*tables, metric)
            p_values = [
                compare(*tables, metric=metric).p_value,
                *sign_flips(difference, tables[0].links, pushes, rng),
            ]
            found.append([*(p < 0.05 for p in p_values), not low[column] <= 0 <= high[column]])
        alarms.append(found)
    truth = np.append(np.mean(values, axis=0)[:2], np.median(values, axis=0)[2])
    low, high = np.moveaxis(np.array(intervals, float), -1, 0)
    covered = ((low <= truth) & (truth <= high)).mean(0)
    return covered, np.mean(alarms, axis=0).T


def draw_answers(rng, people, per_person, effect, both):
    """Scored answers of people with log-normal activity, appeal and pickiness, without pools.

    The score tells something with an effect above 0; it is liked people who have high scores or
    low ones by chance.
    """
    activity = rng.lognormal(0, 0.7, (2, people))
    chosen = np.log(activity[0])[:, None] + np.log(activity[1]) + rng.gumbel(size=(people, people))
    dates = np.argsort(-chosen.ravel())[: per_person * people]
    a, b = np.unravel_index(dates, chosen.shape)
    score = 0.7 * rng.normal(size=len(a)) + 0.3 * rng.normal(size=people)[a]
    score += 0.7 * rng.normal(size=people)[b]
    odds = effect * score + 0.7 * rng.normal(size=people)[b] + rng.normal(size=people)[a] - 0.5
    yes = rng.random(len(a)) < 1 / (1 + np.exp(-odds))
    nothing, score = np.zeros(len(a), np.int64), score.astype(np.float32)
    views = [(nothing, 2 * a, 2 * b + 1), (nothing + 1, 2 * b + 1, 2 * a)]
    return ScoredDecisions.concatenate(
        [ScoredDecisions(*view, yes, score, nothing - 1, nothing) for view in views[: 1 + both]]
    )


def print_answers(repetitions) -> None:
    """Coverage and level for the AUC of graphs without pools."""
    for people, per_person, both in ((60, 10, False), (60, 10, True), (150, 10, False)):
        for effect in (0.0, 0.5):
            rngs = [
                np.random.default_rng([seed, people, per_person]) for seed in range(repetitions)
            ]
            found = [
                summarize_auc(draw_answers(rng, people, per_person, effect, both)) for rng in rngs
            ]
            for kind in ("per_person", "per_pool"):
                estimates = [getattr(auc, kind) for auc in found]
                truth = np.mean([estimate.value for estimate in estimates])
                covered = np.mean([contains(e.interval, truth) for e in estimates])
                rejected = np.mean([estimate.p_value < 0.05 for estimate in estimates])
                print(
                    f"  {people} + {people} people, {per_person} answers each, both sides ask: "
                    f"{both}, true AUC {kind} {truth:.3f}: {covered:.3f}; found to differ from 0.5 "
                    f"at 5 %: {rejected:.3f}",
                    flush=True,
                )


def draw_clusters(rng, clusters):
    """A table of 8 to 19 queries in each cluster, with ranks of 1 to 31."""
    label = np.repeat(np.arange(clusters), rng.integers(8, 20, clusters))
    score = 0.8 * rng.normal(size=clusters)[label] + 1.2 * rng.normal(size=len(label))
    rank = 1 + np.floor(30 / (1 + np.exp(score + 0.5)))
    columns = {
        "direction": np.zeros(len(label), np.int64),
        "query": np.arange(len(label)),
        "component": label,
        "candidates": np.full(len(label), 31),
        "reciprocal_rank": 1 / rank,
        "rank": rank,
        "recall_at_10": (rank <= 10).astype(float),
    }
    return QueryTable((10,), columns)


def few_clusters(repetitions, clusters):
    """Coverage for R@10 and MRR of few clusters."""

    def measure(seed, resamples):
        table = draw_clusters(np.random.default_rng([seed, clusters]), clusters)
        return summarize(table, resamples=resamples, seed=seed)

    truths = [measure(10**6 + seed, 0) for seed in range(4 * TRUTH_DRAWS)]
    return coverage(truths, (measure(seed, 300) for seed in range(repetitions)))


LOG_KINDS = [
    (rank_pools, "pools", POOLS),
    (cross_validate_log, "cross-validation by people", [(300, 8.0, 0.5)]),
    (rank_log, "log", LOGS[::-1]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repetitions", type=int, default=500, help="number of simulated data sets"
    )
    parser.add_argument(
        "--data", choices=KINDS, action="append", help="what to simulate; all by default"
    )
    options = parser.parse_args()
    print(f"{options.repetitions} repetitions; share of 95 % intervals with the true value")
    if "couples" in (options.data or KINDS):
        print_couples(options.repetitions)
    if "logs" in (options.data or KINDS):
        print_logs(options.repetitions)
    if "answers" in (options.data or KINDS):
        print_answers(options.repetitions)
    for clusters in (2, 3, 4, 5, 6, 8) if "few" in (options.data or KINDS) else ():
        _, _, shares = few_clusters(options.repetitions, clusters)
        print(f"  {clusters} clusters: R@10 {shares[0]:.3f}, MRR {shares[1]:.3f}", flush=True)


def print_logs(repetitions) -> None:
    methods = ("standard errors", "pigeonhole bootstrap")
    tests = ("standard errors", "signs of people", "signs of both", "pigeonhole bootstrap")
    for draw_tables, name, settings in LOG_KINDS:
        for setting in settings:
            covered, alarms = logs(repetitions, draw_tables, setting)
            print(f"  {name} {setting}")
            for method, (recall, mrr, median) in zip(methods, covered, strict=True):
                print(f"    {method}: R@10 {recall:.3f}, MRR {mrr:.3f}, median rank {median:.3f}")
            for method, (recall, mrr) in zip(tests, alarms, strict=True):
                print(
                    f"    equal rankings found to differ at 5 % by {method}: R@10 {recall:.3f}, "
                    f"MRR {mrr:.3f}",
                    flush=True,
                )


def print_couples(repetitions) -> None:
    for name, run, pairs in (
        ("one test set", one_test_set, 75),
        ("5-fold × 3", cross_validated, 300),
    ):
        for likeness, hubs in ((0.1, 0.0), (0.3, 0.0), (0.3, 1.0)):
            recall, mrr, shares = run(repetitions, pairs, likeness, hubs)
            print(
                f"  {name}, {pairs} pairs, likeness {likeness}, hubs {hubs}: "
                f"R@10 {shares[0]:.3f} (true value {recall:.3f}), "
                f"MRR {shares[1]:.3f} (true value {mrr:.3f})",
                flush=True,
            )
    for likeness in (0.2, 0.4):
        alarms, covered = false_alarms(repetitions, 300, likeness)
        print(
            f"  equal learners, 300 pairs, likeness {likeness}: found to differ at 5 %: "
            f"R@10 {alarms[0]:.3f}, MRR {alarms[1]:.3f}; intervals of the difference that contain "
            f"0: {covered[0]:.3f}, {covered[1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

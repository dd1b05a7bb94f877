"""Do the intervals cover, and do the tests keep their level? On simulated pairs whose truth is known.

    python benchmarks/coverage.py [--repetitions 500]

Prints the share of 95 % intervals that hold the true value (a mean over many fresh draws of the
same size), for the evaluation of one test set and for cross-validation, and how often two learners
that are equal in truth are called different at 5 %.
"""

from __future__ import annotations

import argparse

import numpy as np

from pairmatch import Evaluator
from pairmatch.core.arrays import unit_rows
from pairmatch.core.interfaces import Learner
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.learning.baselines import Centred

TRUTH_DRAWS = 1500


def draw(rng, pairs, width, likeness, hubs):
    """Partners' features correlate by `likeness`.

    Everybody shares a direction of length `hubs`, which makes hubs.
    """
    x = rng.normal(size=(pairs, width))
    y = likeness * x + np.sqrt(1 - likeness**2) * rng.normal(size=(pairs, width))
    x[:, 0] += hubs
    y[:, 0] += hubs
    return x, y


class Half(Learner):
    """Cosine on one half of the dimensions, after centring.

    Two such learners are equal in truth.
    """

    def __init__(self, first: bool) -> None:
        self.first = first

    def fit(self, train, *, seed=0):
        def part(features):
            middle = features.shape[1] // 2
            return features[:, :middle] if self.first else features[:, middle:]

        means = {"a": part(train.a).mean(0), "b": part(train.b).mean(0)}
        return lambda features, side: unit_rows(part(features) - means[side])


def one_test_set(repetitions, pairs, width, likeness, hubs):
    def evaluate(seed, resamples):
        a, b = draw(np.random.default_rng(seed), pairs, width, likeness, hubs)
        return Evaluator(ks=(10,), resamples=resamples, seed=seed).evaluate(a, b).both

    truths = [evaluate(10**6 + seed, 0) for seed in range(TRUTH_DRAWS)]
    recall, mrr = np.mean([t.recall[10] for t in truths]), np.mean([t.mrr for t in truths])
    hits = np.zeros(2)
    for seed in range(repetitions):
        found = evaluate(seed, 1000)
        hits += [
            found.recall_interval[10][0] <= recall <= found.recall_interval[10][1],
            found.mrr_interval[0] <= mrr <= found.mrr_interval[1],
        ]
    return recall, mrr, hits / repetitions


def cross_validated(repetitions, pairs, width, likeness, hubs):
    def run(seed, repeats):
        data = PairedFeatures.of(*draw(np.random.default_rng(seed), pairs, width, likeness, hubs))
        return cross_validate(data, {"centred": Centred()}, repeats=repeats, ks=(10,), seed=seed)

    truths = [run(10**6 + seed, 1).metrics("centred", resamples=0) for seed in range(TRUTH_DRAWS)]
    recall, mrr = np.mean([t.recall[10] for t in truths]), np.mean([t.mrr for t in truths])
    hits = np.zeros(2)
    for seed in range(repetitions):
        found = run(seed, 3).metrics("centred")
        hits += [
            found.recall_interval[10][0] <= recall <= found.recall_interval[10][1],
            found.mrr_interval[0] <= mrr <= found.mrr_interval[1],
        ]
    return recall, mrr, hits / repetitions


def false_alarms(repetitions, pairs, width, likeness):
    alarms = np.zeros(2)
    misses = np.zeros(2)
    for seed in range(repetitions):
        data = PairedFeatures.of(*draw(np.random.default_rng(seed), pairs, width, likeness, 0.5))
        found = cross_validate(
            data, {"one": Half(True), "other": Half(False)}, repeats=3, ks=(10,), seed=seed
        )
        for column, metric in enumerate(("R@10", "MRR")):
            comparison = found.compare("one", "other", metric=metric)
            alarms[column] += comparison.p_value < 0.05
            misses[column] += not comparison.interval[0] <= 0 <= comparison.interval[1]
    return alarms / repetitions, 1 - misses / repetitions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    count = parser.parse_args().repetitions
    print(f"{count} repetitions; share of 95 % intervals that hold the truth")
    for name, run, pairs in (
        ("one test set", one_test_set, 75),
        ("5-fold × 3", cross_validated, 300),
    ):
        for likeness, hubs in ((0.1, 0.0), (0.3, 0.0), (0.3, 1.0)):
            recall, mrr, hits = run(count, pairs, 32, likeness, hubs)
            print(
                f"  {name}, {pairs} pairs, likeness {likeness}, hubs {hubs}: R@10 {hits[0]:.3f} (truth {recall:.3f}), "
                f"MRR {hits[1]:.3f} (truth {mrr:.3f})",
                flush=True,
            )
    for likeness in (0.2, 0.4):
        alarms, cover = false_alarms(count, 300, 32, likeness)
        print(
            f"  equal learners, 300 pairs, likeness {likeness}: called different at 5 %: R@10 {alarms[0]:.3f}, "
            f"MRR {alarms[1]:.3f}; intervals of the difference hold 0: {cover[0]:.3f}, {cover[1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

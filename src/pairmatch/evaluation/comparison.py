"""Is one ranking better than another? Paired tests, intervals, and correction for many tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.display import decimal
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.intervals import (
    FEWEST_CLUSTERS,
    cluster_errors,
    expanded_tail,
    mean_errors,
)
from pairmatch.evaluation.links import Links, student_interval
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.ranks import Doubles
from pairmatch.evaluation.rivals import Pushes

_BATCH = 500
_PERMUTATIONS = 9999


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The mean difference of paired values, with interval and p-value.

    Attributes:
        difference: Mean of the first values minus mean of the second.
        interval: (low, high) of the difference.
        p_value: Two-sided p-value of the paired randomization test, or of the t-test over people.
        clusters: Number of independent groups of people; over people, of people of the side that
            has fewer.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    clusters: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference between two rankings of the same queries; `print` shows it as a sentence.

    Attributes:
        name: Name of the ranking that is tested, usually a learner.
        baseline: Name of the ranking that it is compared with.
        metric: `MRR`, or `R@K`.
        difference: Mean over queries, `name` minus `baseline`; recall as a fraction in [−1, 1].
        interval: (low, high) of the difference.
        p_value: Two-sided p-value of the paired test; after Holm's correction if `corrected_for` is
            above 1.
        confidence: Confidence level of the interval, for example 0.95.
        queries: Number of distinct queries.
        clusters: Number of independent groups of people, or of people of the side that has fewer
            where they stand in so many pairs that there are no groups.
        corrected_for: Number of comparisons that `p_value` is corrected for.
    """

    name: str
    baseline: str
    metric: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    confidence: float
    queries: int
    clusters: int
    corrected_for: int = 1

    def __str__(self) -> str:
        if self.difference == 0 and self.interval == (0.0, 0.0):
            return f"{self.name} and {self.baseline} do not differ in {self.metric}."
        low, high = self.interval
        if self.metric == "MRR":
            amount = f"{abs(self.difference):.3f} of MRR"
            bounds = f"{decimal(low)} to {decimal(high)}"
        else:
            amount = f"{100 * abs(self.difference):.1f} points of {self.metric}"
            bounds = f"{decimal(100 * low, 1)} to {decimal(100 * high, 1)}"
        direction = "better" if self.difference >= 0 else "worse"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        if self.corrected_for > 1:
            p += f" (corrected for {self.corrected_for} comparisons)"
        significant = self.p_value < 1 - self.confidence
        return (
            f"{self.name} is {direction} than {self.baseline} by {amount}, "
            f"{100 * self.confidence:g} % interval {bounds}, {p}"
            f"{'' if significant else ': not distinguishable from chance'}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self) | {"interval": list(self.interval)}


def compare(
    table: QueryTable,
    baseline_table: QueryTable,
    *,
    metric: str = "MRR",
    name: str = "this",
    baseline: str = "the other",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compares two rankings of the same queries.

    Args:
        table: Metrics of the ranking that is tested; its clusters of people are what is resampled.
        baseline_table: Metrics of the baseline on the same queries.
        metric: `MRR`, or `R@K` with a K of both tables.
        name: Name of the first, for the sentence.
        baseline: Name of the second.
        confidence: Confidence level of the interval, in (0, 1).
        resamples: Number of bootstrap resamples; the test uses 9,999 randomizations.
        seed: Seed for both.

    Raises:
        ConfigurationError: The queries or galleries differ, the metric is unknown, or all queries
            are about one person.
    """
    values = (table.metric(metric), baseline_table.metric(metric))
    if not table.same_queries(baseline_table):
        raise ConfigurationError(
            "`compare` needs two rankings of the same queries among the same candidates."
        )
    test = paired_test(
        *values,
        table.clusters(),
        pushes=candidate_pushes(table, baseline_table, metric),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    return Comparison(
        name=name,
        baseline=baseline,
        metric=metric,
        difference=test.difference,
        interval=test.interval,
        p_value=test.p_value,
        confidence=confidence,
        queries=table.queries,
        clusters=test.clusters,
    )


def paired_test(
    values: Floats,
    baseline_values: Floats,
    clusters: Ints | Links,
    *,
    pushes: Pushes | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedTest:
    """Tests the mean difference of paired values of people.

    Clusters are resampled for the interval (expanded percentile bootstrap, Hesterberg 2015), and
    the paired randomization test (Fisher 1935) swaps the two values of a whole cluster at once.
    With links instead of clusters, interval and t-test use their two-way standard error.

    Args:
        values: [Q] a metric of each query.
        baseline_values: [Q] the same metric by the baseline.
        clusters: [Q] int64 labels of independent clusters; or the links of the queries, where
            there are too few clusters.
        pushes: What people add to the difference as candidates; used with links.
        confidence: Confidence level of the interval, in (0, 1).
        resamples: Number of bootstrap resamples.
        seed: Seed for interval and test.

    Raises:
        ConfigurationError: The arrays differ in length, or there is only one cluster.
    """
    if not len(values) == len(baseline_values) == len(clusters) or np.ndim(values) != 1:
        raise ConfigurationError(
            "A paired test needs one value of each ranking, and one cluster, per query."
        )
    if isinstance(clusters, Links):
        differences = np.asarray(values, np.float64) - np.asarray(baseline_values, np.float64)
        return _over_people(differences, clusters, pushes, confidence)
    _, label, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ConfigurationError(
            "A paired test needs at least two clusters of people; all queries belong to one."
        )
    first, second = (
        np.bincount(label, np.asarray(array, np.float64)) for array in (values, baseline_values)
    )
    gain = first - second
    difference = float(gain.sum() / counts.sum())
    if difference == 0 and np.ptp(gain / counts) == 0:
        return PairedTest(difference, (difference, difference), 1.0, len(counts))
    interval = mean_interval(gain, counts, confidence=confidence, resamples=resamples, seed=seed)
    p_value = stats.permutation_test(
        (first, second),
        lambda x, y, axis=-1: x.sum(axis) - y.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    ).pvalue
    return PairedTest(difference, interval, float(p_value), len(counts))


def candidate_pushes(table: QueryTable, baseline_table: QueryTable, metric: str) -> Pushes | None:
    """What people add to the difference of two tables as candidates."""
    both = [t.links.pushes([metric]) for t in (table, baseline_table) if t.links is not None]
    known = [pushes for pushes in both if pushes is not None]
    if len(known) < 2:
        return known[0] if known else None
    (units, ours), (other_units, theirs) = known
    return np.concatenate([units, other_units]), np.concatenate([ours, -theirs])


def _over_people(
    differences: Doubles, links: Links, pushes: Pushes | None, confidence: float
) -> PairedTest:
    """Student's test of a mean over people who stand in several links."""
    difference = float(differences.mean())
    errors, freedom = links.standard_errors(differences[:, None], pushes)
    error = float(errors[0])
    interval = student_interval(difference, error, freedom, confidence)
    if difference == 0:
        return PairedTest(difference, interval, 1.0, links.independent)
    # Never below that of a randomization test that swaps the values of each person
    p_value = 2.0 ** (1 - links.independent)
    if error > 0:
        p_value = max(p_value, 2 * float(stats.t.sf(abs(difference) / error, freedom)))
    return PairedTest(difference, interval, p_value, links.independent)


def mean_interval(
    sums: npt.NDArray[Any], counts: Ints, *, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of a mean over queries, by the expanded percentile bootstrap over clusters.

    With fewer than 6 clusters, it is Student's.

    Args:
        sums: [clusters] sum of the values of each cluster.
        counts: [clusters] number of values of each cluster.
        confidence: Confidence level, in (0, 1).
        resamples: Number of bootstrap resamples.
        seed: Seed for the bootstrap.
    """
    if len(counts) < FEWEST_CLUSTERS:
        mean = float(sums.sum() / counts.sum())
        error = float(mean_errors(sums[:, None], counts)[0])
        return student_interval(mean, error, len(counts) - 1, confidence)
    tail = expanded_tail((1 - confidence) / 2, len(counts))
    interval = stats.bootstrap(
        (sums, counts.astype(np.float64)),
        lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=_BATCH,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def standard_errors(table: QueryTable, values: Doubles) -> Doubles:
    """[F] standard errors of the means of F figures: over clusters, or over people without them.

    Args:
        table: Q queries.
        values: [Q, F] the values of the figures.
    """
    clusters = table.clusters()
    if isinstance(clusters, Links):
        return clusters.standard_errors(values)[0]
    return cluster_errors(values, clusters)[0]


def holm(p_values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[n] p-values corrected for multiple tests (Holm 1979).

    The chance of a single false positive among all tests stays below the level.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p-values corrected for all of them (Holm)."""
    p_values = holm([comparison.p_value for comparison in comparisons])
    return [
        dataclasses.replace(comparison, p_value=float(p), corrected_for=len(comparisons))
        for comparison, p in zip(comparisons, p_values, strict=True)
    ]

"""Metrics over queries, with intervals over people.

Where people stand in few pairs, clusters of connected people are resampled. Where nearly all people
is connected, intervals come from the standard errors of
[`Links`][pairmatch.evaluation.links.Links].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from scipy.stats import t as student

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.evaluation.links import Links, student_interval
from pairmatch.evaluation.medians import POINTS, rank_points, share_within
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.ranks import Doubles

#: With fewer clusters, no resampling is wide enough.
FEWEST_CLUSTERS = 6
_RESAMPLE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics over a set of queries, with confidence intervals.

    Attributes:
        queries: Number of rows of the table: a query that was tested twice counts twice.
        recall: Recall@K by K, in [0, 1].
        mrr: Mean reciprocal rank, in (0, 1].
        median_rank: Median rank of the best-ranked partner, over queries and over all orders of
            tied candidates; 1 is first.
        recall_interval: (low, high) by K; empty if no intervals were requested.
        mrr_interval: (low, high) or None.
        median_rank_interval: (low, high) or None.
    """

    queries: int
    recall: Mapping[int, float]
    mrr: float
    median_rank: float
    recall_interval: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    mrr_interval: tuple[float, float] | None = None
    median_rank_interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `recall` by K, `mrr`, `median_rank`, and `intervals` if there are any."""
        figures: dict[str, Any] = {
            "recall": {str(k): value for k, value in self.recall.items()},
            "mrr": self.mrr,
            "median_rank": self.median_rank,
        }
        if self.mrr_interval is not None and self.median_rank_interval is not None:
            figures["intervals"] = {
                "recall": {str(k): list(bounds) for k, bounds in self.recall_interval.items()},
                "mrr": list(self.mrr_interval),
                "median_rank": list(self.median_rank_interval),
            }
        return figures

    def flat(self, prefix: str = "") -> dict[str, float]:
        """The same values by one name each: `mrr`, `mrr_low`, `recall_at_10`, `median_rank` …

        Args:
            prefix: Beginning of every name.
        """
        names = {"MRR": "mrr", **{f"R@{k}": f"recall_at_{k}" for k in self.recall}}
        flat = {}
        for metric, name in names.items():
            flat[prefix + name], interval = self.value(metric)
            if interval is not None:
                flat[f"{prefix}{name}_low"], flat[f"{prefix}{name}_high"] = interval
        return {**flat, f"{prefix}median_rank": self.median_rank}

    def value(self, metric: str) -> tuple[float, tuple[float, float] | None]:
        """A metric and its interval by name: `MRR` or `R@K`."""
        if metric == "MRR":
            return self.mrr, self.mrr_interval
        k = int(metric[2:])
        return self.recall[k], self.recall_interval.get(k)


def summarize(
    table: QueryTable, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Metrics:
    """Metrics over all rows of a table, with intervals.

    Expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
    section 5.3) over components: the two directions of one pair are one observation, not two. Where
    [`Links.clusters`][pairmatch.evaluation.links.Links.clusters] finds too few components, it is
    Student's interval with two-way standard errors over people, and Woodruff's (1952, "Confidence
    Intervals for Medians and Other Position Measures") for the median rank. So it is with fewer
    than 6 components, by the standard error between them and one degree of freedom fewer than
    components; a single one has no interval.

    Args:
        table: Q queries.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for the bootstrap.
    """
    everything = np.ones(len(table), bool)
    return _summarize(table, [everything], resamples, confidence, seed)[0]


def summarize_directions(
    table: QueryTable, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> list[Metrics]:
    """`summarize` over all rows, then over each direction if there are two."""
    subsets = [np.ones(len(table), bool)]
    directions = np.unique(table["direction"])
    if len(directions) == 2:
        subsets += [table["direction"] == direction for direction in directions]
    return _summarize(table, subsets, resamples, confidence, seed)


def _summarize(
    table: QueryTable,
    subsets: Sequence[npt.NDArray[np.bool_]],
    resamples: int,
    confidence: float,
    seed: int,
) -> list[Metrics]:
    if not resamples:
        return [_point(table.select(rows)) for rows in subsets]
    components = table.clusters()
    if isinstance(components, Links):
        return [
            _over_people(table.select(rows), components.select(rows), confidence)
            for rows in subsets
        ]
    clusters, labels = np.unique(components, return_inverse=True)
    if len(clusters) < FEWEST_CLUSTERS:
        return [_over_few(table.select(rows), labels[rows], confidence) for rows in subsets]
    tail = expanded_tail((1 - confidence) / 2, len(clusters))
    parts = [_Subset(table.select(rows), labels[rows], len(clusters)) for rows in subsets]
    for weights in _draws(len(clusters), resamples, seed):
        for part in parts:
            part.resample(weights)
    return [part.metrics(tail) for part in parts]


def expanded_tail(tail: float, clusters: int) -> float:
    """The tail at which a percentile interval of few clusters is as wide as Student's."""
    if clusters < 2:
        return tail
    return float(norm.cdf(student.ppf(tail, clusters - 1) * np.sqrt(clusters / (clusters - 1))))


def _draws(clusters: int, resamples: int, seed: int) -> Iterator[Vectors]:
    """Chunks of [resamples, clusters] float32: how often each cluster is drawn."""
    rng = np.random.default_rng(seed)
    rows = max(1, _RESAMPLE_BYTES // (8 * clusters))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, clusters, (count, clusters), dtype=np.int32)
        counts = np.empty((count, clusters), np.float32)
        for row, clusters_drawn in enumerate(drawn):  # a row stays in the processor's cache
            counts[row] = np.bincount(clusters_drawn, minlength=clusters)
        yield counts


class _Subset:
    """Some rows of a table, and their metrics in every resample."""

    def __init__(self, table: QueryTable, labels: Ints, clusters: int) -> None:
        self.ks = table.ks
        self.median_rank = table.median_rank
        ranks, labels_of_ranks, self.points = _median_points(table, labels)
        ones = np.ones(len(table))
        self.values = np.column_stack([table.recall, table["reciprocal_rank"], ones])
        sums = [np.bincount(labels, column, clusters) for column in self.values.T]
        self.sums = np.stack(sums, axis=1).astype(np.float32)
        self.means: list[npt.NDArray[np.floating]] = []
        self.medians: list[npt.NDArray[np.floating]] = []
        # A resample's median is within 8 standard deviations of the middle: only those are examined
        order = np.argsort(ranks, kind="stable")
        reach = self.points * (int(4 * np.sqrt(np.square(self.sums[:, -1]).sum())) + 2)
        low = max(0, len(order) // 2 - reach)
        high = min(len(order), len(order) // 2 + reach)
        self.window = ranks[order[low:high]]
        self.window_labels = labels_of_ranks[order[low:high]]
        before = np.bincount(labels_of_ranks[order[:low]], minlength=clusters)
        self.before = before.astype(np.float32)

    def resample(self, weights: Vectors) -> None:
        # A resample of groups without a query in this subset has no metrics
        weights = weights[weights @ self.sums[:, -1] > 0]
        totals = weights @ self.sums
        self.means.append(totals[:, :-1] / totals[:, -1:])
        cumulative = np.cumsum(weights[:, self.window_labels], axis=1)
        passed = (weights @ self.before)[:, None] + cumulative
        half = totals[:, -1:] * self.points / 2
        last = len(self.window) - 1
        lower = np.minimum((passed < half).sum(1), last)
        upper = np.minimum((passed <= half).sum(1), last)
        self.medians.append((self.window[lower] + self.window[upper]) / 2)

    def metrics(self, tail: float) -> Metrics:
        point = _metrics(self.ks, self.values[:, :-1], self.median_rank)
        if not any(map(len, self.means)):  # no resample has a query of this subset
            return point
        low, high = np.quantile(np.concatenate(self.means), [tail, 1 - tail], axis=0)
        median_low, median_high = np.quantile(np.concatenate(self.medians), [tail, 1 - tail])
        bounds = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
        return _with_intervals(point, bounds, (float(median_low), float(median_high)))


def _over_people(table: QueryTable, links: Links, confidence: float) -> Metrics:
    """Metrics with intervals over people who stand in several links of the table."""
    errors, freedom = links.standard_errors(
        _figures(table), links.pushes([*(f"R@{k}" for k in table.ks), "MRR", "median rank"])
    )
    return _student(table, errors, freedom, confidence)


def _over_few(table: QueryTable, labels: Ints, confidence: float) -> Metrics:
    """Metrics with Student's intervals over few clusters; without intervals for a single one."""
    errors, clusters = cluster_errors(_figures(table), labels)
    if clusters < 2:
        return _point(table)
    return _student(table, errors, clusters - 1, confidence)


def cluster_errors(values: Doubles, labels: Ints) -> tuple[Doubles, int]:
    """[F] standard errors of the means of [Q, F] values in clusters, and the number of clusters.

    Args:
        values: [Q, F] the values of F figures.
        labels: [Q] int64 cluster of each row.
    """
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(label, column) for column in values.T], axis=1)
    return mean_errors(sums, counts), len(counts)


def mean_errors(sums: npt.NDArray[Any], counts: Ints) -> Doubles:
    """[F] standard errors of means over the values of several clusters.

    Args:
        sums: [clusters, F] sums of the values of F figures in each cluster.
        counts: [clusters] number of values of each cluster.
    """
    means = sums.sum(0) / counts.sum()
    spread = np.square(sums - means * counts[:, None]).sum(0)
    return np.sqrt(spread * len(counts) / max(len(counts) - 1, 1)) / counts.sum()


def _figures(table: QueryTable) -> Doubles:
    """[Q, number of K + 2] recall, reciprocal rank, and the share of ranks up to the median."""
    return np.column_stack([table.recall, table["reciprocal_rank"], _above(table)])


def _student(table: QueryTable, errors: Doubles, freedom: float, confidence: float) -> Metrics:
    """Metrics with Student's intervals, and Woodruff's for the median rank."""
    values = np.column_stack([table.recall, table["reciprocal_rank"]])
    point = _point(table)
    bounds = [
        student_interval(mean, error, freedom, confidence)
        for mean, error in zip([*values.mean(0), 0.5], errors, strict=True)
    ]
    bounds = [(max(low, 0.0), min(high, 1.0)) for low, high in bounds]
    points = _median_points(table, np.zeros(len(table), np.int64))[0]
    low, high = np.quantile(points, bounds[-1], method="inverted_cdf").tolist()
    # Between two middle ranks, the median is neither of them
    median_rank = (min(low, point.median_rank), max(high, point.median_rank))
    return _with_intervals(point, bounds[:-1], median_rank)


def _above(table: QueryTable) -> Doubles:
    """[Q] share of each query's rank, over orders of ties, that is at most the median rank."""
    median = np.floor(table.median_rank)
    if "tied" not in table.columns:
        return (table["rank"] <= median).astype(np.float64)
    return share_within(median - table["ahead"], table["tied"], table["tied_partners"])


def _metrics(ks: Sequence[int], values: Doubles, median_rank: float) -> Metrics:
    """Means of the recall at each K and of the reciprocal rank, the columns of `values`."""
    means = values.mean(0)
    return Metrics(
        queries=len(values),
        recall={k: float(value) for k, value in zip(ks, means[:-1], strict=True)},
        mrr=float(means[-1]),
        median_rank=median_rank,
    )


def _point(table: QueryTable) -> Metrics:
    """Metrics without intervals."""
    values = np.column_stack([table.recall, table["reciprocal_rank"]])
    return _metrics(table.ks, values, table.median_rank)


def _with_intervals(
    point: Metrics, bounds: Sequence[tuple[float, float]], median_rank: tuple[float, float]
) -> Metrics:
    return replace(
        point,
        recall_interval=dict(zip(point.recall, bounds[:-1], strict=True)),
        mrr_interval=bounds[-1],
        median_rank_interval=median_rank,
    )


def _median_points(table: QueryTable, labels: Ints) -> tuple[Doubles, Ints, int]:
    """Ranks that stand for all queries, the label of each, and how many stand for one query."""
    if "tied" not in table.columns or (table["tied"] == 1).all():
        return table["rank"], labels, 1
    points = rank_points(table["ahead"], table["tied"], table["tied_partners"])
    return points.ravel(), np.repeat(labels, POINTS), POINTS

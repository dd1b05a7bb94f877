"""Figures over queries and their bootstrap intervals.

Clusters of people are resampled, never single queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm
from scipy.stats import t as student

from pairmatch.core.arrays import Ints
from pairmatch.evaluation.ranks import QueryMetrics

_RESAMPLE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures over a set of queries, with the bounds of their intervals.

    Attributes:
        queries: Number of queries.
        recall: Recall@K by K, in [0, 1].
        mrr: Mean reciprocal rank, in (0, 1].
        median_rank: Median over queries of the best-placed partner's (expected) rank; 1 is first.
        recall_interval: (low, high) by K; empty where intervals were not asked for.
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
        """JSON values.

        `recall` by K as text, `mrr`, `median_rank`, and `intervals` where there are some.
        """
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


def summaries(
    measured: Sequence[QueryMetrics],
    grouped: Sequence[Ints],
    ks: Sequence[int],
    resamples: int,
    tail: float,
    seed: int,
) -> list[Metrics]:
    """Metrics of all queries and, where there are two directions, of each; with intervals that resample clusters.

    Expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
    section 5.3) over clusters of people who are joined through matches: the two directions of one
    pair are one observation, not two.
    """
    names, inverse = np.unique(np.concatenate(grouped), return_inverse=True)
    tail = expanded_tail(tail, len(names))
    labels = np.split(inverse, np.cumsum([len(group) for group in grouped])[:-1])
    subsets = [tuple(range(len(measured))), *([(0,), (1,)] if len(measured) == 2 else [])]
    parts = [
        _Subset([measured[i] for i in subset], [labels[i] for i in subset], len(names))
        for subset in subsets
    ]
    for weights in _draws(len(names), resamples, seed):
        for part in parts:
            part.resample(weights)
    return [part.metrics(ks, tail) for part in parts]


def expanded_tail(tail: float, clusters: int) -> float:
    """The tail at which a percentile interval of so few clusters is as wide as Student's, not narrower."""
    if clusters < 2:
        return tail
    return float(norm.cdf(student.ppf(tail, clusters - 1) * np.sqrt(clusters / (clusters - 1))))


def _draws(clusters: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Chunks of [resamples, clusters] float32: how often each cluster is drawn."""
    rng = np.random.default_rng(seed)
    rows = max(1, _RESAMPLE_BYTES // (8 * clusters))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, clusters, (count, clusters), dtype=np.int32)
        drawn += (np.arange(count, dtype=np.int32) * clusters)[:, None]
        yield (
            np.bincount(drawn.ravel(), minlength=count * clusters)
            .reshape(count, clusters)
            .astype(np.float32)
        )


class _Subset:
    """The queries of one line of the table, and its figures in every resample."""

    def __init__(
        self, measured: Sequence[QueryMetrics], labels: Sequence[Ints], clusters: int
    ) -> None:
        label = np.concatenate(labels)
        recall = np.concatenate([metrics.recall for metrics in measured])
        reciprocal = np.concatenate([metrics.reciprocal_rank for metrics in measured])
        self.ranks = np.concatenate([metrics.rank for metrics in measured])
        self.values = np.column_stack([recall, reciprocal, np.ones(len(label))])
        self.sums = np.stack(
            [np.bincount(label, column, clusters) for column in self.values.T], axis=1
        )
        self.sums = self.sums.astype(np.float32)
        self.means: list[npt.NDArray[np.floating]] = []
        self.medians: list[npt.NDArray[np.floating]] = []
        # A resample's median lies within 8 standard deviations of the middle: only those queries
        # are looked at
        order = np.argsort(self.ranks, kind="stable")
        reach = int(4 * np.sqrt(np.square(self.sums[:, -1]).sum())) + 2
        low, high = max(0, len(order) // 2 - reach), min(len(order), len(order) // 2 + reach)
        self.window, self.window_labels = self.ranks[order[low:high]], label[order[low:high]]
        self.before = np.bincount(label[order[:low]], minlength=clusters).astype(np.float32)

    def resample(self, weights: npt.NDArray[np.float32]) -> None:
        totals = weights @ self.sums
        self.means.append(totals[:, :-1] / totals[:, -1:])
        passed = (weights @ self.before)[:, None] + np.cumsum(
            weights[:, self.window_labels], axis=1
        )
        half = totals[:, -1:] / 2
        last = len(self.window) - 1
        lower = np.minimum((passed < half).sum(1), last)
        upper = np.minimum((passed <= half).sum(1), last)
        self.medians.append((self.window[lower] + self.window[upper]) / 2)

    def metrics(self, ks: Sequence[int], tail: float) -> Metrics:
        means = self.values[:, :-1].mean(0)
        point = Metrics(
            queries=len(self.values),
            recall={k: float(value) for k, value in zip(ks, means[:-1], strict=True)},
            mrr=float(means[-1]),
            median_rank=float(np.median(self.ranks)),
        )
        if not self.means:
            return point
        low, high = np.quantile(np.concatenate(self.means), [tail, 1 - tail], axis=0)
        first, last = np.quantile(np.concatenate(self.medians), [tail, 1 - tail])
        bounds = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
        return replace(
            point,
            recall_interval=dict(zip(ks, bounds[:-1], strict=True)),
            mrr_interval=bounds[-1],
            median_rank_interval=(float(first), float(last)),
        )

"""Is one learner better than another? Paired tests and intervals over people, and correction for having asked often."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.intervals import expanded_tail

_BATCH = 500
_PERMUTATIONS = 9999


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference between two learners on the same queries; `print` says it in plain words.

    Attributes:
        name: Of the learner.
        baseline: Of what it is compared with.
        metric: `MRR`, or `R@K`.
        difference: Mean over queries, learner minus baseline; recall as a fraction in [−1, 1].
        interval: (low, high) of the difference.
        p_value: Of the paired randomisation test, two-sided; after Holm's correction where
            `corrected_for` is above 1.
        confidence: Of the interval, for example 0.95.
        queries: Number of distinct queries.
        clusters: Number of independent groups of people: what is resampled.
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
        low, high = self.interval
        if self.metric == "MRR":
            amount, bounds = f"{abs(self.difference):.3f} of MRR", f"{low:.3f} to {high:.3f}"
        else:
            amount = f"{100 * abs(self.difference):.1f} points of {self.metric}"
            bounds = f"{100 * low:.1f} to {100 * high:.1f}"
        if self.difference == 0 and self.interval == (0.0, 0.0):
            return f"{self.name} and {self.baseline} do not differ in {self.metric}."
        direction = "better" if self.difference >= 0 else "worse"
        sureness = f"{100 * self.confidence:g} % interval {bounds}"
        text = f"{self.name} is {direction} than {self.baseline} by {amount}, {sureness}"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        if self.corrected_for > 1:
            p += f" (corrected for {self.corrected_for} comparisons)"
        verdict = "" if self.p_value < 1 - self.confidence else ": too little to tell it from luck"
        return f"{text}, {p}{verdict}."

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self) | {"interval": list(self.interval)}


def compare(
    ours: Floats,
    theirs: Floats,
    clusters: Ints,
    *,
    name: str = "this",
    baseline: str = "the other",
    metric: str = "MRR",
    queries: int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compares two learners on the same queries.

    People who are joined through matches or groups are one cluster: clusters are resampled for the
    interval (expanded percentile bootstrap, Hesterberg 2015), and in the paired randomisation test
    (Fisher 1935) the two learners are swapped in a whole cluster at once.

    Args:
        ours: [Q] a metric of each query by the learner.
        theirs: [Q] the same by the baseline.
        clusters: [Q] int64 labels.
        name: Of the learner, for the sentence.
        baseline: Of the baseline.
        metric: `MRR` or `R@K`.
        queries: Number of distinct queries, where each was asked several times.
        confidence: Of the interval, in (0, 1).
        resamples: Of the bootstrap; the test takes 9,999 randomisations.
        seed: Of both.

    Raises:
        ConfigurationError: Arrays of different lengths, or a single cluster.
    """
    if not len(ours) == len(theirs) == len(clusters) or np.ndim(ours) != 1:
        raise ConfigurationError(
            "`compare` needs one value of each learner, and one cluster, per query."
        )
    _, label, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ConfigurationError(
            "`compare` needs at least two clusters of people; all queries belong to one."
        )
    sums = [np.bincount(label, np.asarray(values, np.float64)) for values in (ours, theirs)]
    gain = sums[0] - sums[1]
    tail = expanded_tail((1 - confidence) / 2, len(counts))
    difference = float(gain.sum() / counts.sum())
    interval = (difference, difference)
    p_value = 1.0
    if np.ptp(gain / counts) > 0 or difference != 0:
        found = stats.bootstrap(
            (gain, counts.astype(np.float64)),
            lambda g, n, axis=-1: g.sum(axis) / n.sum(axis),
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=_BATCH,
            confidence_level=1 - 2 * tail,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        interval = (float(found.confidence_interval.low), float(found.confidence_interval.high))
        p_value = float(
            stats.permutation_test(
                (sums[0], sums[1]),
                lambda x, y, axis=-1: x.sum(axis) - y.sum(axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=_PERMUTATIONS,
                batch=_BATCH,
                rng=np.random.default_rng(seed),
            ).pvalue
        )
    return Comparison(
        name,
        baseline,
        metric,
        difference,
        interval,
        p_value,
        confidence,
        queries or len(ours),
        len(counts),
    )


def holm(p_values: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[n] p-values corrected so that the chance of a single false alarm among all stays below the level (Holm 1979)."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1)
    return corrected


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p-values after Holm's correction for all of them."""
    values = holm([one.p_value for one in comparisons])
    return [
        dataclasses.replace(one, p_value=float(value), corrected_for=len(comparisons))
        for one, value in zip(comparisons, values, strict=True)
    ]

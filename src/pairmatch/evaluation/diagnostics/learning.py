"""Learning curves: metrics by number of training pairs, and the gain to expect from more pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pairmatch.core import registry
from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.config import PartSpec
from pairmatch.core.display import decimal
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.part import Part
from pairmatch.core.progress import progress_bar
from pairmatch.evaluation.comparison import mean_interval
from pairmatch.evaluation.intervals import Metrics, summarize
from pairmatch.evaluation.links import Links, student_interval
from pairmatch.evaluation.measuring import measure_learner
from pairmatch.evaluation.query_table import QueryTable, usable_ks
from pairmatch.evaluation.splits import Split, SplitBy, cross_validation_splits, smallest_gallery

_EXTRAPOLATED_PAIRS = 200
_RESAMPLES = 2000
_SAMPLES = {
    "component": "Smaller sizes are samples of the training pairs.",
    "people": "Smaller sizes are the pairs among samples of the training people on both sides.",
    "pool": "Smaller sizes are samples of the training pools.",
}


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Metrics by number of training pairs, on the same test people; `print` extrapolates them.

    Attributes:
        pairs: [S] mean number of training pairs, including those held out for early stopping,
            ascending.
        metrics: [S] metrics at each size.
        slope: MRR gained per doubling of the training pairs: the least-squares line in log₂ pairs
            through all sizes.
        slope_interval: (low, high) of the slope, over people.
        confidence: Confidence level of the intervals.
        by: What the samples of training pairs keep together: whole components, or the pairs among
            sampled people of both sides, where pairs are connected.
    """

    pairs: tuple[float, ...]
    metrics: tuple[Metrics, ...]
    slope: float
    slope_interval: tuple[float, float]
    confidence: float
    by: SplitBy = "component"

    def gain(self, more: int) -> tuple[float, float, float]:
        """MRR to expect from more training pairs, extrapolated: (expected, low, high).

        Args:
            more: Number of pairs beyond the largest size of the curve.
        """
        doublings = float(np.log2((self.pairs[-1] + more) / self.pairs[-1]))
        low, high = self.slope_interval
        return self.slope * doublings, low * doublings, high * doublings

    def __str__(self) -> str:
        expected, low, high = self.gain(_EXTRAPOLATED_PAIRS)
        return (
            f"With {self.pairs[-1]:.0f} training pairs, MRR is {self.metrics[-1].mrr:.3f}. "
            f"{_EXTRAPOLATED_PAIRS} more would change it by {decimal(expected, sign=True)} "
            f"({100 * self.confidence:g} % interval "
            f"{decimal(low, sign=True)} to {decimal(high, sign=True)}), if the trend from "
            f"{self.pairs[0]:.0f} to {self.pairs[-1]:.0f} pairs continues. {_SAMPLES[self.by]}"
        )


def learning_curve(
    data: PairedFeatures,
    learner: PartSpec = "contrastive",
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    repeats: int = 2,
    folds: int = 5,
    ks: Sequence[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> LearningCurve:
    """Trains on growing shares of the training pairs, and tests on the same people each time.

    Args:
        data: Features and pairs.
        learner: Name, name with options, or instance of a learner.
        shares: Shares of the training pairs, in (0, 1]; at least two. Components are sampled; in
            connected pairs, people of both sides with their pairs, so that shares are approximate.
        repeats: Number of times that the folds are drawn again.
        folds: Number of folds per repeat.
        ks: K of Recall@K; by default the recipe's that fit the smallest gallery.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for splits, learners and resampling.
        progress: Whether to show a progress bar.

    Raises:
        ConfigurationError: Shares out of range, impossible folds, or a K that is larger than the
            smallest gallery.
    """
    sizes = sorted(set(shares))
    if len(sizes) < 2 or sizes[0] <= 0 or sizes[-1] > 1:
        raise ConfigurationError(
            f"`shares` must be at least two different numbers in (0, 1], got {list(shares)}."
        )
    built = registry.create("learners", learner)
    splits = cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)
    used, _ = usable_ks(ks, smallest_gallery(data, splits), pooled=data.pools is not None)
    tables = []
    counts = []
    with progress_bar(progress) as bar:
        task = bar.add_task("Learning curve", total=len(sizes) * len(splits))
        for share in sizes:
            parts = [_with_share(data, split, share, seed) for split in splits]
            counts.append(_mean_training_pairs(parts))
            tables.append(
                measure_learner(
                    data, built, parts, used, seed=seed, on_split=lambda *_: bar.advance(task)
                )
            )
    metrics = [summarize(table, confidence=confidence, seed=seed) for table in tables]
    slope, interval = _slope(counts, tables, confidence=confidence, seed=seed)
    return LearningCurve(
        tuple(counts), tuple(metrics), slope, interval, confidence, by=splits[0].by
    )


def _with_share(data: PairedFeatures, split: Split, share: float, seed: int) -> Split:
    """The split with a share of its training pairs; smaller shares are subsets of larger ones.

    By people, both people of a pair must be in the sample, which holds the square root of the
    share.
    """
    train = data.take(split.train)
    rng = np.random.default_rng([seed, split.repeat, split.fold])
    if split.by == "people":
        sample = _sample(rng, np.unique(train.units), math.sqrt(share))
        chosen = np.isin(np.arange(int(data.units.max()) + 1), sample)
        inside = data.inside(a=chosen, b=chosen)
        kept = Part(
            np.intersect1d(inside.matches, split.train.matches),
            np.intersect1d(inside.rejected, split.train.rejected),
            np.intersect1d(inside.open, split.train.open),
        )
    else:
        labels = np.unique(train.decision_components)
        kept = data.part(_sample(rng, labels, share))
    return replace(split, train=kept)


def _sample(rng: np.random.Generator, labels: Ints, share: float) -> Ints:
    order = rng.permutation(labels)
    return order[: max(2, round(share * len(order)))]


def _mean_training_pairs(splits: Sequence[Split]) -> float:
    return float(np.mean([len(split.train) for split in splits]))


def _slope(
    pairs: Sequence[float], tables: Sequence[QueryTable], *, confidence: float, seed: int
) -> tuple[float, tuple[float, float]]:
    """Least-squares slope of MRR over log₂ pairs, and its interval over people."""
    x = np.log2(pairs)
    weights: Floats = (x - x.mean()) / np.square(x - x.mean()).sum()
    # The slope is linear in the metrics: each query has its own, and their mean is the slope of MRR
    slopes = weights @ np.stack([table["reciprocal_rank"] for table in tables])
    clusters = tables[0].clusters()
    if isinstance(clusters, Links):
        errors, freedom = clusters.standard_errors(slopes[:, None])
        slope = float(slopes.mean())
        return slope, student_interval(slope, float(errors[0]), freedom, confidence)
    _, labels, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.bincount(labels, slopes)
    interval = mean_interval(sums, counts, confidence=confidence, resamples=_RESAMPLES, seed=seed)
    return float(sums.sum() / counts.sum()), interval

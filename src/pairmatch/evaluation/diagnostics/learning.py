"""How much more pairs would help: metrics by number of training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pairmatch.core import registry
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import (
    Split,
    cross_validation_splits,
    frame,
    line,
    measure,
    progress_bar,
)
from pairmatch.evaluation.intervals import Metrics, expanded_tail


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Metrics by number of training pairs, on the same test people throughout; `print` says what more would give.

    Attributes:
        pairs: [S] mean number of training pairs (with those that early stopping looks at), rising.
        metrics: One per size.
        slope: MRR gained by each doubling of the pairs: a straight line in log₂ pairs through all
            sizes.
        slope_interval: (low, high) of it, over people.
        confidence: Of intervals.
    """

    pairs: tuple[float, ...]
    metrics: tuple[Metrics, ...]
    slope: float
    slope_interval: tuple[float, float]
    confidence: float

    def gain(self, more: int) -> tuple[float, float, float]:
        """MRR that so many more pairs would give, if the line goes on: (expected, low, high)."""
        doublings = float(np.log2((self.pairs[-1] + more) / self.pairs[-1]))
        low, high = self.slope_interval
        return self.slope * doublings, low * doublings, high * doublings

    def __str__(self) -> str:
        now, more = self.metrics[-1].mrr, 200
        expected, low, high = self.gain(more)
        return (
            f"With {self.pairs[-1]:.0f} training pairs MRR is {now:.3f}. {more} more would change it by "
            f"{expected:+.3f} ({100 * self.confidence:g} % interval {low:+.3f} to {high:+.3f}), if it goes on as from "
            f"{self.pairs[0]:.0f} to {self.pairs[-1]:.0f} pairs."
        )


def learning_curve(
    data: PairedFeatures,
    learner: PartSpec = "contrastive",
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    repeats: int = 2,
    folds: int = 5,
    ks: Sequence[int] = (10,),
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> LearningCurve:
    """Trains on growing shares of the training pairs and tests on the same people each time.

    Args:
        data: Features and pairs.
        learner: What is trained.
        shares: Of the training components, in (0, 1], at least two.
        repeats: Of cross-validation.
        folds: Of cross-validation.
        ks: K of Recall@K, where the galleries are large enough.
        confidence: Of intervals.
        seed: Of everything drawn.
        progress: Shows a progress bar.

    Raises:
        ConfigurationError: Shares out of range.
    """
    sizes = sorted(set(shares))
    if len(sizes) < 2 or sizes[0] <= 0 or sizes[-1] > 1:
        raise ConfigurationError(
            f"`shares` must be at least two different numbers in (0, 1], got {list(shares)}."
        )
    splits = cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)
    smallest = min(
        min(len(t.a), len(t.a if t.b is None else t.b))
        for t in (data.of_components(s.test) for s in splits)
    )
    cuts = tuple(k for k in sorted(set(ks)) if k < smallest) or (1,)
    columns, _ = frame(data, splits, cuts)
    built = registry.create("learners", learner)
    values, counts = [], []
    with progress_bar(progress) as bar:
        task = bar.add_task("Learning curve", total=len(sizes) * len(splits))
        for share in sizes:
            smaller = [_share_of(data, split, share, seed) for split in splits]
            counts.append(
                float(np.mean([np.isin(data.components, split.train).sum() for split in smaller]))
            )
            values.append(
                measure(data, built, smaller, cuts, seed=seed, on_split=lambda: bar.advance(task))
            )
    labels = columns["component"]
    metrics = tuple(line(found, labels, cuts, confidence=confidence, seed=seed) for found in values)
    # Slope of each cluster's mean over log2 pairs, so that people are resampled as wholes
    x = np.log2(counts)
    weights = (x - x.mean()) / np.square(x - x.mean()).sum()
    per_query = np.tensordot(weights, np.stack([v[:, -2] for v in values]), 1)
    _, label, size = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.bincount(label, per_query)
    found = stats.bootstrap(
        (sums, size.astype(float)),
        lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        batch=500,
        confidence_level=1 - 2 * expanded_tail((1 - confidence) / 2, len(size)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    interval = (float(found.low), float(found.high))
    return LearningCurve(
        tuple(counts), metrics, float(sums.sum() / size.sum()), interval, confidence
    )


def _share_of(data: PairedFeatures, split: Split, share: float, seed: int) -> Split:
    """A split with a share of its training components, nested.

    A smaller share is part of a larger one.
    """
    order = np.random.default_rng([seed, split.repeat, split.fold]).permutation(split.train)
    return Split(split.repeat, split.fold, order[: max(2, round(share * len(order)))], split.test)

"""Matplotlib figures for papers and notebooks; the report draws its own.

Requires the extra `plots`. Figures do not use pyplot: nothing is displayed, and no global state
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.diagnostics import Hubness, LearningCurve, Reliability
from pairmatch.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def recall_figure(evaluation: Evaluation) -> Figure:
    """Recall@K by K, with frozen features and chance."""
    figure, axes = _figure("K: number of candidates", "Recall@K")
    curve = evaluation.recall_curve()
    ks = np.arange(1, len(curve) + 1)
    label = "trained" if evaluation.frozen else "embeddings"
    axes.plot(ks, curve, label=label, color="C0", linewidth=2)
    for k, (low, high) in evaluation.both.recall_interval.items():
        axes.vlines(k, low, high, color="C0", alpha=0.6)
    if evaluation.frozen is not None:
        axes.plot(ks, evaluation.frozen.recall_curve(), label="frozen", color="C1", linestyle="--")
    axes.plot(ks, ks / len(ks), label="chance", color="0.5", linestyle=":")
    axes.set_ylim(0, 1)
    axes.legend()
    return figure


def learners_figure(result: CrossValidation, *, metric: str = "MRR") -> Figure:
    """A metric of every learner of a cross-validation, with its interval.

    Args:
        result: Result of `cross_validate` or of a sweep.
        metric: `MRR`, or `R@K` with one of `result.ks`.

    Raises:
        ConfigurationError: An unknown metric.
    """
    names = result.chance.metric_names
    if metric not in names:
        raise ConfigurationError(unknown_name("metric", metric, names))
    figure, axes = _figure(metric, "")
    learners = list(reversed(result.learners))
    for row, learner in enumerate(learners):
        value, interval = result.metrics(learner).value(metric)
        if interval:
            axes.hlines(row, *interval, color="C0")
        axes.plot(value, row, "o", color="C0")
    chance, _ = result.metrics("chance").value(metric)
    axes.axvline(chance, color="0.5", linestyle=":", label="chance")
    axes.set_yticks(range(len(learners)), learners)
    axes.legend()
    return figure


def learning_curve_figure(curve: LearningCurve) -> Figure:
    """MRR by number of training pairs, with intervals."""
    figure, axes = _figure("training pairs", "MRR")
    bounds = [metrics.mrr_interval or (metrics.mrr, metrics.mrr) for metrics in curve.metrics]
    lows = [low for low, _ in bounds]
    highs = [high for _, high in bounds]
    axes.fill_between(curve.pairs, lows, highs, alpha=0.2)
    axes.plot(curve.pairs, [metrics.mrr for metrics in curve.metrics], "o-")
    axes.set_ylim(bottom=0)
    return figure


def reliability_figure(reliability: Reliability) -> Figure:
    """Observed by predicted share of matches."""
    figure, axes = _figure("predicted share of matches", "observed share")
    top = max(reliability.predicted.max(), reliability.observed.max(), 1e-6) * 1.05
    axes.plot([0, top], [0, top], color="0.5", linestyle=":", label="perfect")
    axes.plot(reliability.predicted, reliability.observed, "o-", label="test pairs")
    axes.legend()
    return figure


def exposure_figure(rankings: Sequence[tuple[str, Hubness]]) -> Figure:
    """Lorenz curves of exposure: share of recommendations by share of candidates.

    Args:
        rankings: Name and hubness of each ranking.
    """
    figure, axes = _figure("share of candidates, least shown first", "share of recommendations")
    for name, hubs in rankings:
        counts = np.concatenate([[0], np.cumsum(np.sort(hubs.counts))])
        shares = counts / max(counts[-1], 1)
        label = f"{name} (Gini {hubs.gini:.2f})"
        axes.plot(np.linspace(0, 1, len(counts)), shares, label=label)
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="equal")
    axes.legend()
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Any]:
    """An empty figure and its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            'Figures need matplotlib: pip install "pairmatch[plots]".'
        ) from error
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes

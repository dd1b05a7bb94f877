"""Figures as matplotlib figures, for papers and notebooks; the report draws its own.

Needs the extra `plots`. Figures are made without pyplot: nothing is shown, and no global state is
touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.diagnostics import Hubness, LearningCurve, Reliability
from pairmatch.evaluation.evaluator import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def recall_figure(evaluation: Evaluation) -> Figure:
    """Recall@K by K, beside frozen features and chance."""
    figure, axes = _figure("K: candidates looked at", "Recall@K")
    curve = evaluation.recall_curve()
    ks = np.arange(1, len(curve) + 1)
    axes.plot(
        ks, curve, label="trained" if evaluation.frozen else "embeddings", color="C0", linewidth=2
    )
    for k, (low, high) in evaluation.both.recall_interval.items():
        axes.vlines(k, low, high, color="C0", alpha=0.6)
    if evaluation.frozen is not None:
        axes.plot(ks, evaluation.frozen.recall_curve(), label="frozen", color="C1", linestyle="--")
    axes.plot(ks, ks / len(ks), label="chance", color="0.5", linestyle=":")
    axes.set_ylim(0, 1)
    axes.legend()
    return figure


def learners_figure(result: CrossValidation, *, metric: str = "MRR") -> Figure:
    """Every learner of a cross-validation with its interval.

    Args:
        result: Of cross-validation or a sweep.
        metric: `MRR` or `R@K`.

    Raises:
        ConfigurationError: A metric that is not there.
    """
    names = ["MRR", *(f"R@{k}" for k in result.ks)]
    if metric not in names:
        raise ConfigurationError(f"`metric` is one of {', '.join(names)}, got {metric!r}.")
    figure, axes = _figure(metric, "")
    for row, learner in enumerate(reversed(result.learners)):
        figures = result.metrics(learner)
        value = figures.mrr if metric == "MRR" else figures.recall[int(metric[2:])]
        bounds = (
            figures.mrr_interval
            if metric == "MRR"
            else figures.recall_interval.get(int(metric[2:]))
        )
        if bounds:
            axes.hlines(row, *bounds, color="C0")
        axes.plot(value, row, "o", color="C0")
    chance = result.metrics("chance")
    axes.axvline(
        chance.mrr if metric == "MRR" else chance.recall[int(metric[2:])],
        color="0.5",
        linestyle=":",
        label="chance",
    )
    axes.set_yticks(range(len(result.learners)), list(reversed(result.learners)))
    axes.legend()
    return figure


def learning_curve_figure(curve: LearningCurve) -> Figure:
    """MRR by number of training pairs, with intervals."""
    figure, axes = _figure("training pairs", "MRR")
    values = [one.mrr for one in curve.metrics]
    bounds = [one.mrr_interval or (one.mrr, one.mrr) for one in curve.metrics]
    axes.fill_between(
        curve.pairs, [low for low, _ in bounds], [high for _, high in bounds], alpha=0.2
    )
    axes.plot(curve.pairs, values, "o-")
    axes.set_ylim(bottom=0)
    return figure


def reliability_figure(found: Reliability) -> Figure:
    """Observed against predicted share of matches."""
    figure, axes = _figure("predicted share of matches", "observed share")
    top = max(found.predicted.max(), found.observed.max(), 1e-6) * 1.05
    axes.plot([0, top], [0, top], color="0.5", linestyle=":", label="perfect")
    axes.plot(found.predicted, found.observed, "o-", label="test pairs")
    axes.legend()
    return figure


def exposure_figure(found: Sequence[tuple[str, Hubness]]) -> Figure:
    """Lorenz curves.

    The share of all recommendations that the least shown people get, by name of the ranking.
    """
    figure, axes = _figure("share of people, least shown first", "share of recommendations")
    for name, one in found:
        counts = np.concatenate([[0], np.cumsum(np.sort(one.counts))])
        axes.plot(
            np.linspace(0, 1, len(counts)),
            counts / max(counts[-1], 1),
            label=f"{name} (Gini {one.gini:.2f})",
        )
    axes.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="all alike")
    axes.legend()
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Any]:
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

"""Matplotlib figures for papers and notebooks; the report draws its own.

Requires the extra `plots`. Figures do not use pyplot: nothing is displayed, and no global state
changes. Colors are those of Okabe and Ito, which people with color blindness can tell apart, and
legends stand above the plot, where they cover nothing.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pairmatch.core._version import __version__
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.diagnostics import Hubness, LearningCurve, Reliability
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.io.replacing import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Extensions of the files that `save_figure` writes.
FORMATS = (".pdf", ".svg")
_OURS, _FROZEN, _CHANCE = "#0072B2", "#D55E00", "0.45"
# Those of their colors whose contrast to white is 3:1 and more
_PALETTE = (_OURS, _FROZEN, "#009E73", "#CC79A7", "#000000")
_LINES = ("-", "--", "-.", ":")
_HEIGHT = 3.6  # inches
# Fonts in PDF are embedded as TrueType (journals refuse Type 3), letters in SVG are outlines
_EMBEDDED = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path"}


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as .pdf or .svg, with its fonts, and without a date: equal figures are equal.

    Raises:
        ConfigurationError: The extension is unknown.
    """
    import matplotlib

    target = Path(path)
    check_figure_file(target)
    content = io.BytesIO()
    dates = {".pdf": "CreationDate", ".svg": "Date"}
    about = {dates[target.suffix]: None, "Creator": f"pairmatch {__version__} with Matplotlib"}
    with matplotlib.rc_context({**_EMBEDDED, "svg.hashsalt": "pairmatch"}):
        figure.savefig(content, format=target.suffix[1:], metadata=about)
    replace_file(target, content.getvalue())
    return target


def check_figure_file(path: Path) -> None:
    """Checks the extension of a figure's file.

    Raises:
        ConfigurationError: It is not one of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ConfigurationError(
            f"A figure is written as {' or '.join(FORMATS)}, got {path.name!r}."
        )


def recall_figure(evaluation: Evaluation) -> Figure:
    """Recall@K by K, with frozen features and chance."""
    figure, axes = _figure("K: number of candidates", "Recall@K")
    curve = evaluation.recall_curve()
    ks = np.arange(1, len(curve) + 1)
    label = "trained" if evaluation.frozen else "embeddings"
    axes.plot(ks, curve, label=label, color=_OURS, linewidth=2)
    for k, (low, high) in evaluation.both.recall_interval.items():
        axes.vlines(k, low, high, color=_OURS, alpha=0.6)
    if evaluation.frozen is not None:
        axes.plot(
            ks, evaluation.frozen.recall_curve(), label="frozen", color=_FROZEN, linestyle="--"
        )
    axes.plot(ks, ks / len(ks), label="chance", color=_CHANCE, linestyle=":")
    axes.set_ylim(0, 1)
    _legend(figure)
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
    labels = [textwrap.shorten(name, 60, placeholder=" …") for name in learners]
    labels = ["\n".join(textwrap.wrap(label, 30)) for label in labels]
    lines = max(label.count("\n") + 1 for label in labels)
    figure.set_figheight(max(_HEIGHT, 1.1 + 0.22 * lines * len(labels)))
    for row, learner in enumerate(learners):
        value, interval = result.metrics(learner).value(metric)
        if interval:
            axes.hlines(row, *interval, color=_OURS)
        axes.plot(value, row, "o", color=_OURS)
    chance, _ = result.metrics("chance").value(metric)
    axes.axvline(chance, color=_CHANCE, linestyle=":", label="chance")
    axes.set_yticks(range(len(learners)), labels, parse_math=False)
    _legend(figure)
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
    axes.plot([0, top], [0, top], color=_CHANCE, linestyle=":", label="perfect")
    axes.plot(reliability.predicted, reliability.observed, "o-", label="test pairs")
    _legend(figure)
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
        style = _LINES[len(axes.lines) % len(_LINES)]
        axes.plot(np.linspace(0, 1, len(counts)), shares, label=label, linestyle=style)
    axes.plot([0, 1], [0, 1], color=_CHANCE, linestyle=":", label="equal")
    _legend(figure)
    return figure


def _figure(x: str, y: str) -> tuple[Figure, Any]:
    """An empty figure and its axes."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            'Figures need matplotlib: pip install "pairmatch[plots]".'
        ) from error
    figure = Figure(figsize=(5, _HEIGHT), layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    axes.set_prop_cycle(color=_PALETTE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def _legend(figure: Figure) -> None:
    """The legend above the plot."""
    legend = figure.legend(loc="outside upper center", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names may have dollar signs

"""Figures of a report, in the coordinates of their SVG; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pairmatch.report.content import Report
from pairmatch.report.curves import rank_edges

_MAX_TICKS = 6


def percent(share: float) -> str:
    """A share as a whole percentage, for example `40 %`."""
    return f"{100 * share:.0f} %"


def confidence(evaluation: Mapping[str, Any]) -> str:
    """Confidence level of an evaluation's intervals in percent, for example `95`."""
    return f"{100 * evaluation.get('confidence', 0.95):g}"


class Plot:
    """A small plot.

    The `kind` of a line or band selects its color: `ours`, `frozen` or `chance`.

    Args:
        title: Title.
        caption: Text below the title.
        x: Label, minimum and maximum of the horizontal axis: whole numbers, or shares.
        y: Label, minimum and maximum of the vertical axis.
        in_percent: Whether the ticks of the vertical axis are percentages.
        x_in_percent: Whether the ticks of the horizontal axis are percentages.
    """

    width = 380
    height = 250
    left = 46
    right = 368
    top = 24
    bottom = 206

    def __init__(
        self,
        title: str,
        caption: str,
        *,
        x: tuple[str, float, float],
        y: tuple[str, float, float],
        in_percent: bool = False,
        x_in_percent: bool = False,
    ) -> None:
        self.title = title
        self.caption = caption
        self.description = ""
        self.x_label, self.x_low, self.x_high = x
        self.y_label, self.y_low, self.y_high = y
        x_ticks = _ticks(self.x_low, self.x_high, min_step=0 if x_in_percent else 1)
        y_ticks = _ticks(self.y_low, self.y_high)
        self.x_ticks = [(self.x(tick), _tick_label(tick, x_in_percent)) for tick in x_ticks]
        self.y_ticks = [(self.y(tick), _tick_label(tick, in_percent)) for tick in y_ticks]
        self.paths: list[tuple[str, str]] = []
        self.bars: list[tuple[float, float, float, float]] = []
        self.mark: float | None = None
        self.key: list[tuple[str, str]] = []

    def x(self, value: float) -> float:
        """Horizontal coordinate of a value, in pixels."""
        share = (value - self.x_low) / max(self.x_high - self.x_low, 1e-9)
        return round(self.left + share * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        """Vertical coordinate of a value, in pixels."""
        share = (value - self.y_low) / max(self.y_high - self.y_low, 1e-9)
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def line(self, kind: str, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Adds a line through points."""
        self.paths.append((kind, f"M{self._points(xs, ys)}"))

    def band(self, kind: str, xs: Sequence[float], bounds: Sequence[tuple[float, float]]) -> None:
        """Adds a band between the lower and the upper bounds."""
        low, high = zip(*bounds, strict=True)
        outline = self._points([*xs, *reversed(xs)], [*high, *reversed(low)])
        self.paths.append((f"band {kind}", f"M{outline}Z"))

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " L".join(f"{self.x(x)} {self.y(y)}" for x, y in zip(xs, ys, strict=True))


def _tick_label(value: float, in_percent: bool) -> str:
    return f"{100 * value:g} %" if in_percent else f"{value:g}"


def _ticks(low: float, high: float, min_step: float = 0.0) -> list[float]:
    """At most 6 round values in a range."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / 2))
    steps = (power * factor for factor in (1, 2, 5, 10))
    step = max(next(step for step in steps if span / step <= _MAX_TICKS - 0.5), min_step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * index, 10) for index in range(first, last + 1)]


def plots(report: Report) -> list[Plot]:
    """The figures that a report has data for."""
    figures = []
    if report.curves:
        figures.append(_recall_plot(report))
    if report.ranks:
        figures.append(_rank_plot(report))
    columns = dict.fromkeys(column for row in report.history for column in row if column != "epoch")
    history = (_history_plot(report.history, column) for column in columns)
    return [*figures, *(plot for plot in history if plot is not None)]


def _recall_plot(report: Report) -> Plot:
    names = {
        "ours": "trained" if "frozen" in report.curves else "embeddings",
        "frozen": "frozen",
        "chance": "chance",
    }
    ks = list(report.curve_ks) or list(range(1, len(report.curves["ours"]) + 1))
    caption = "Share of true partners among the top K candidates."
    if report.bands:
        caption += f" Shaded: {confidence(report.evaluation)} % intervals."
    plot = Plot(
        "Recall by number of candidates",
        caption,
        x=("K: number of candidates", ks[0], ks[-1]),
        y=("Recall@K", 0, 1),
        in_percent=True,
    )
    kinds = [kind for kind in ("chance", "frozen", "ours") if kind in report.curves]
    for kind in kinds:
        if kind in report.bands:
            plot.band(kind, ks, report.bands[kind])
    for kind in kinds:
        plot.line(kind, ks, report.curves[kind])
    plot.key = [(kind, names[kind]) for kind in reversed(kinds)]
    table_ks = [int(k) for k in report.evaluation["both"]["recall"] if int(k) in ks]
    descriptions = []
    for kind in reversed(kinds):
        curve = dict(zip(ks, report.curves[kind], strict=True))
        shares = ", ".join(f"{percent(curve[k])} at {k}" for k in table_ks)
        descriptions.append(f"{names[kind]}: {shares}")
    plot.description = "; ".join(descriptions)
    return plot


def _rank_plot(report: Report) -> Plot:
    candidates = max(report.evaluation.get("candidates") or [math.ceil(max(report.ranks))])
    if "pools" in report.evaluation:
        candidates = report.evaluation["pools"]["candidates"]["largest"]
    edges = rank_edges(candidates)
    shares = np.histogram(report.ranks, edges)[0] / len(report.ranks)
    chance = list(report.rank_chance) or (np.diff(edges) / candidates).tolist()
    plot = Plot(
        "Ranks of the true partners",
        "Further left is better. A random order follows the dotted line.",
        x=("rank of the true partner", 0.5, candidates + 0.5),
        y=("share of queries", 0, max(*shares, *chance) * 1.05),
        in_percent=True,
    )
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        left = plot.x(low)
        top = plot.y(share)
        plot.bars.append((left, top, max(plot.x(high) - left - 1.5, 0.5), plot.bottom - top))
    plot.line("chance", np.repeat(edges, 2)[1:-1].tolist(), np.repeat(chance, 2).tolist())
    plot.key = [("ours", "true partners"), ("chance", "chance")]
    plot.description = (
        f"{percent(shares[0])} of true partners are in the top {edges[1]:.0f}, compared with "
        f"{percent(chance[0])} in a random order"
    )
    return plot


def _history_plot(history: Sequence[Mapping[str, float]], column: str) -> Plot | None:
    """A column by epoch; None if fewer than two epochs have a finite value."""
    finite = [
        (row["epoch"], row[column])
        for row in history
        if column in row and math.isfinite(row[column])
    ]
    if len(finite) < 2:
        return None
    epochs, values = zip(*finite, strict=True)
    name = column.replace("train_", "training_").replace("mrr", "MRR").replace("_", " ")
    plot = Plot(
        f"{name[0].upper()}{name[1:]} by epoch",
        "",
        x=("epoch", min(epochs), max(epochs)),
        y=(name, min(0, *values), max(0, *values) * 1.05),
    )
    plot.line("ours", epochs, values)
    plot.description = (
        f"from {values[0]:.3f} in epoch {epochs[0]:g} to {values[-1]:.3f} in epoch {epochs[-1]:g}"
    )
    if column == "validation_mrr":
        best = epochs[values.index(max(values))]
        plot.mark = plot.x(best)
        plot.caption = (
            f"The weights of epoch {best:g}, the best on the validation pairs, were kept."
        )
    return plot

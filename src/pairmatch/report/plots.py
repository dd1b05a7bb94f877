"""The figures of a report, in the coordinates of their SVG; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pairmatch.report.content import Report, rank_edges


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.0f} %"


def confidence(evaluation: Mapping[str, Any]) -> str:
    """Of the intervals, in percent."""
    return f"{100 * evaluation.get('confidence', 0.95):g}"


class Plot:
    """A small plot in the coordinates of its SVG, which the template draws; x runs over whole numbers or a share.

    The `kind` of a line or band names its colour: `ours`, `frozen` or `chance`.
    """

    width, height = 380, 250
    left, right, top, bottom = 46, 368, 24, 206

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
        self.title, self.caption, self.description = title, caption, ""
        self.x_label, self.x_low, self.x_high = x
        self.y_label, self.y_low, self.y_high = y
        steps = _ticks(self.x_low, self.x_high, least_step=0 if x_in_percent else 1)
        self.x_ticks = [(self.x(v), _unit(v, x_in_percent)) for v in steps]
        self.y_ticks = [(self.y(v), _unit(v, in_percent)) for v in _ticks(self.y_low, self.y_high)]
        self.paths: list[tuple[str, str]] = []
        self.bars: list[tuple[float, float, float, float]] = []
        self.mark: float | None = None
        self.key: list[tuple[str, str]] = []

    def x(self, value: float) -> float:
        share = (value - self.x_low) / max(self.x_high - self.x_low, 1e-9)
        return round(self.left + share * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / max(self.y_high - self.y_low, 1e-9)
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " L".join(f"{self.x(x)} {self.y(y)}" for x, y in zip(xs, ys, strict=True))

    def line(self, kind: str, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.paths.append((kind, f"M{self._points(xs, ys)}"))

    def band(self, kind: str, xs: Sequence[float], bounds: Sequence[tuple[float, float]]) -> None:
        low, high = zip(*bounds, strict=True)
        self.paths.append(
            (f"band {kind}", f"M{self._points([*xs, *reversed(xs)], [*high, *reversed(low)])}Z")
        )


def _unit(value: float, in_percent: bool) -> str:
    return f"{100 * value:g} %" if in_percent else f"{value:g}"


def _ticks(low: float, high: float, least_step: float = 0.0) -> list[float]:
    """At most 6 round values of the range."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / 2))
    step = max(next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= 5.5), least_step)
    return [
        round(step * i, 10)
        for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def plots(report: Report) -> list[Plot]:
    """The figures that a report has data for."""
    figures = [_recall_plot(report)] if report.curves else []
    if report.ranks:
        figures.append(_rank_plot(report))
    columns = dict.fromkeys(column for row in report.history for column in row if column != "epoch")
    return figures + [plot for column in columns if (plot := _history_plot(report.history, column))]


def _recall_plot(report: Report) -> Plot:
    names = {
        "ours": "trained" if "frozen" in report.curves else "embeddings",
        "frozen": "frozen",
        "chance": "chance",
    }
    ks = list(report.curve_ks) or list(range(1, len(report.curves["ours"]) + 1))
    caption = "Share of true partners among the first K candidates."
    if report.bands:
        caption += f" Shaded: {confidence(report.evaluation)} % intervals."
    plot = Plot(
        "Recall by number of candidates",
        caption,
        x=("K: candidates looked at", ks[0], ks[-1]),
        y=("Recall@K", 0, 1),
        in_percent=True,
    )
    shown = [kind for kind in ("chance", "frozen", "ours") if kind in report.curves]
    for kind in shown:
        if kind in report.bands:
            plot.band(kind, ks, report.bands[kind])
    for kind in shown:
        plot.line(kind, ks, report.curves[kind])
    plot.key = [(kind, names[kind]) for kind in reversed(shown)]
    told = [(k, ks.index(int(k))) for k in report.evaluation["both"]["recall"] if int(k) in ks]
    plot.description = "; ".join(
        f"{names[kind]}: "
        + ", ".join(f"{percent(report.curves[kind][at])} at {k}" for k, at in told)
        for kind in reversed(shown)
    )
    return plot


def _rank_plot(report: Report) -> Plot:
    candidates = max(report.evaluation.get("candidates") or [math.ceil(max(report.ranks))])
    edges = rank_edges(candidates)
    shares = np.histogram(report.ranks, edges)[0] / len(report.ranks)
    chance = list(report.rank_chance) or (np.diff(edges) / candidates).tolist()
    plot = Plot(
        "Where the true partners stood",
        "The more on the left, the better; a random order would follow the dotted line.",
        x=("rank of the true partner", 0.5, candidates + 0.5),
        y=("share of queries", 0, max(*shares, *chance) * 1.05),
        in_percent=True,
    )
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        left, top = plot.x(low), plot.y(share)
        plot.bars.append((left, top, max(plot.x(high) - left - 1.5, 0.5), plot.bottom - top))
    plot.line("chance", np.repeat(edges, 2)[1:-1].tolist(), np.repeat(chance, 2).tolist())
    plot.key = [("ours", "true partners"), ("chance", "chance")]
    plot.description = (
        f"{percent(shares[0])} of true partners stand among the first {edges[1]:.0f} ranks, where a random order puts "
        f"{percent(chance[0])}"
    )
    return plot


def _history_plot(history: Sequence[Mapping[str, float]], column: str) -> Plot | None:
    """A column by epoch; None where fewer than two epochs have a finite value."""
    known = [
        (row["epoch"], row[column])
        for row in history
        if column in row and math.isfinite(row[column])
    ]
    if len(known) < 2:
        return None
    epochs, values = zip(*known, strict=True)
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
        plot.caption = f"Weights of epoch {best:g}, the best on the validation pairs, were kept."
    return plot

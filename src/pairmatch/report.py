"""The report of a fit: one self-contained HTML page, and the same figures as JSON."""

from __future__ import annotations

import base64
import datetime
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from pairmatch import __version__
from pairmatch.data import Pairs
from pairmatch.evaluator import Evaluation
from pairmatch.images import ImageSource, load_image
from pairmatch.matcher import Matcher
from pairmatch.saved import write_file

_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 38
_THUMBNAIL_PX = 184
_QUERIES, _CANDIDATES = 8, 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ranked candidate of a query, with a thumbnail as a data URL."""

    rank: int
    photo: str
    is_partner: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A test person's thumbnail and the candidates shown for them."""

    photo: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows; plain data.

    Attributes:
        title: Heading.
        evaluation: As `Evaluation.to_dict` gives it.
        curves: Recall@K for K = 1, 2, … by name (`ours`, `frozen`, `chance`).
        ranks: Rank of the best-placed partner of every query.
        history: Rows of the training history.
        queries: Examples with photos; empty where photos are not to be shown.
        facts: What was used, by name.
        notes: What a reader has to know.
        created: ISO date.
        version: Of pairmatch.
    """

    title: str
    evaluation: Mapping[str, Any]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    ranks: Sequence[float] = ()
    history: Sequence[Mapping[str, float]] = ()
    queries: Sequence[Query] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())
    version: str = __version__


def matcher_report(
    matcher: Matcher,
    train: Pairs,
    validation: Pairs,
    test: Pairs,
    evaluation: Evaluation,
    *,
    title: str,
    photos: bool = False,
    notes: Sequence[str] = (),
) -> Report:
    """Gathers what the page shows about a fitted matcher.

    Args:
        matcher: After `fit`.
        train: Its training pairs.
        validation: Its validation pairs.
        test: The pairs of `evaluation`.
        evaluation: Of the matcher on `test`.
        title: Heading of the page.
        photos: Shows thumbnails of some test people; leave it off for photos of real people.
        notes: Shown beside the matcher's and the evaluation's own.
    """
    curve = evaluation.recall_curve()
    size = len(curve)
    curves: dict[str, Sequence[float]] = {"ours": curve.tolist()}
    if evaluation.frozen is not None:
        curves["frozen"] = evaluation.frozen.recall_curve().tolist()
    sizes = evaluation.candidates
    curves["chance"] = np.mean([np.minimum(np.arange(1, size + 1) / n, 1) for n in sizes], axis=0).tolist()
    return Report(
        title=title,
        evaluation=evaluation.to_dict(),
        curves=curves,
        ranks=evaluation.ranks.tolist(),
        history=matcher.history,
        queries=_examples(matcher, test) if photos else (),
        facts={
            "Pairs": f"{len(train)} to train, {len(validation)} to validate, {len(test)} to test",
            "People": str(len({*train.profiles, *validation.profiles, *test.profiles})),
            **matcher.summary(),
        },
        notes=[*notes, *matcher.notes, *evaluation.notes],
    )


def _examples(matcher: Matcher, test: Pairs) -> tuple[Query, ...]:
    """Evenly chosen people of side a, with their best candidates and their partner wherever it stands."""
    gallery = matcher.gallery([test.profiles[person] for person in test.ids_b])
    partners: dict[str, set[str]] = {}
    for pair in test.pairs:
        if pair.outcome == "match":
            partners.setdefault(pair.a, set()).add(pair.b)
    asking = [person for person in partners if test.profiles[person].images]
    chosen = [asking[i] for i in np.linspace(0, len(asking) - 1, min(_QUERIES, len(asking))).astype(int)]
    queries = []
    for person in chosen:
        found = matcher.recommend(test.profiles[person], gallery, len(gallery.profiles))
        true = [one for one in found if one.profile.id in partners[person]]
        shown = found[:_CANDIDATES] + [one for one in true[:1] if one.rank > _CANDIDATES]
        candidates = [
            Candidate(one.rank, _thumbnail(one.profile.images[0]), one.profile.id in partners[person])
            for one in shown
            if one.profile.images
        ]
        queries.append(Query(_thumbnail(test.profiles[person].images[0]), tuple(candidates)))
    return tuple(queries)


def _thumbnail(source: ImageSource) -> str:
    """A small JPEG as a data URL; pixels alone, no metadata of the file."""
    buffer = io.BytesIO()
    image = load_image(source, longest_side_px=_THUMBNAIL_PX)
    image.info.clear()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_report(path: Path, report: Report) -> None:
    """Writes the page, and `report.json` with the same figures beside it."""
    environment = Environment(loader=PackageLoader("pairmatch"), autoescape=True, trim_blocks=True)
    evaluation = report.evaluation
    ks = list(evaluation["both"]["recall"])
    page = environment.get_template("report.html.jinja").render(
        report=report,
        lead=summary(evaluation),
        ks=ks,
        rows=_rows(evaluation, ks),
        galleries=" and ".join(str(size) for size in dict.fromkeys(evaluation["candidates"])),
        confidence=f"{100 * evaluation['confidence']:g}",
        figures=_figures(report),
        queries=report.queries,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page.encode())
    figures = {
        "title": report.title,
        "created": report.created,
        "version": report.version,
        "facts": dict(report.facts),
        "notes": list(report.notes),
        "evaluation": dict(evaluation),
        "curves": {name: list(curve) for name, curve in report.curves.items()},
        "ranks": list(report.ranks),
        "history": [dict(row) for row in report.history],
    }
    write_file(path.with_suffix(".json"), (json.dumps(figures, indent=1) + "\n").encode())


def summary(evaluation: Mapping[str, Any]) -> str:
    """The result in one plain sentence."""
    both, chance = evaluation["both"], evaluation["chance"]
    k = "10" if "10" in both["recall"] else next(reversed(both["recall"]))
    size = " or ".join(str(n) for n in dict.fromkeys(evaluation["candidates"]))
    text = f"For new people, the true partner stood among the first {k} of {size} in {_percent(both['recall'][k])}"
    if "intervals" in both:
        low, high = both["intervals"]["recall"][k]
        text += f" ({100 * evaluation['confidence']:g} % interval {100 * low:.0f}–{_percent(high)})"
    text += f"; chance is {_percent(chance['recall'][k])}"
    if "frozen" in evaluation:
        text += f", frozen features reach {_percent(evaluation['frozen']['both']['recall'][k])}"
    return text + "."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _rows(evaluation: Mapping[str, Any], ks: Sequence[str]) -> list[dict[str, Any]]:
    lines = [("chance", evaluation["chance"], False)]
    if "frozen" in evaluation:
        lines.append(("frozen", evaluation["frozen"]["both"], False))
    lines.append(("trained" if "frozen" in evaluation else "embeddings", evaluation["both"], True))
    lines += [
        (name, evaluation[key], False) for name, key in (("a → b", "a_to_b"), ("b → a", "b_to_a")) if key in evaluation
    ]
    rows = []
    for name, figures, ours in lines:
        bounds = figures.get("intervals")
        cells = []
        for k in ks:
            interval = "–".join(f"{100 * v:.1f}" for v in bounds["recall"][k]) if bounds else ""
            cells.append((f"{100 * figures['recall'][k]:.1f}", interval))
        for key, digits in (("mrr", 3), ("median_rank", 1)):
            cells.append(
                (f"{figures[key]:.{digits}f}", "–".join(f"{v:.{digits}f}" for v in bounds[key]) if bounds else "")
            )
        rows.append({"name": name, "cells": cells, "ours": ours})
    return rows


def _figures(report: Report) -> list[dict[str, Any]]:
    figures = []
    names = {"ours": "trained" if "frozen" in report.curves else "embeddings", "frozen": "frozen", "chance": "chance"}
    if report.curves:
        size = len(report.curves["ours"])
        key = [(name, names[name]) for name in report.curves]
        figures.append(
            {"svg": _recall_svg(report, size), "key": key, "caption": "Recall at every K; bars are intervals."}
        )
    if report.ranks:
        svg = _rank_svg(report.ranks, max(report.evaluation["candidates"]))
        key = [("chance", "chance")]
        figures.append(
            {"svg": svg, "key": key, "caption": "Where true partners stood. The more on the left, the better."}
        )
    if len(report.history) > 1:
        figures += [
            {"svg": plot, "key": [], "caption": caption}
            for column, caption in (
                ("train_loss", "Training loss by epoch."),
                ("validation_mrr", "Validation MRR by epoch; the best epoch's weights were kept."),
            )
            if (plot := _history_svg(report.history, column)) is not None
        ]
    return figures


class _Plot:
    """A small SVG plot with axes from 0 (x from `x_min`)."""

    def __init__(
        self, title: str, description: str, x_label: str, x: tuple[float, float], y_max: float, *, percent: bool
    ) -> None:
        self.x_range, self.y_max = x, y_max or 1.0
        self.parts = [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
        ]
        for value in _ticks(self.y_max):
            y = self.y(value)
            text = f"{100 * value:g} %" if percent else f"{value:g}"
            self.parts.append(
                f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
            )
        for value in [tick for tick in _ticks(x[1]) if tick >= x[0]]:
            self.parts.append(f'<text x="{self.x(value):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{value:g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        self.parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / max(high - low, 1e-9) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self.y_max * (_HEIGHT - _TOP - _BOTTOM)

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        points = " L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        self.parts.append(f'<path class="{kind}" d="M{points}"/>')

    def svg(self) -> Markup:
        return Markup("".join(self.parts) + "</svg>")


def _ticks(top: float) -> list[float]:
    step = 10 ** np.floor(np.log10(top / 2)) if top > 0 else 1.0
    step = next(float(step * m) for m in (1, 2, 5, 10) if top / (step * m) <= 5.5)
    return [round(float(step * i), 10) for i in range(int(top / step + 1e-9) + 1)]


def _recall_svg(report: Report, size: int) -> Markup:
    both = report.evaluation["both"]
    words = "; ".join(f"recall at {k}: {_percent(v)}" for k, v in both["recall"].items())
    plot = _Plot("Recall by K", words, "K: candidates looked at", (1, size), 1.0, percent=True)
    ks = list(range(1, size + 1))
    for name in ("chance", "frozen", "ours"):
        if name in report.curves:
            plot.line(ks, report.curves[name], name)
    for k, (low, high) in both.get("intervals", {}).get("recall", {}).items():
        x = plot.x(int(k))
        plot.parts.append(
            f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{plot.y(low):.1f}" y2="{plot.y(high):.1f}"/>'
        )
    return plot.svg()


def _rank_svg(ranks: Sequence[float], candidates: int) -> Markup:
    bins = min(15, candidates)
    edges = np.linspace(0.5, candidates + 0.5, bins + 1)
    counts, _ = np.histogram(ranks, edges)
    shares = counts / len(ranks)
    first = _percent(float(shares[0]))
    words = f"{first} of partners stand in the first of {bins} equal parts; chance is {_percent(1 / bins)}"
    top = max(float(shares.max()), 1.0 / bins) * 1.05
    plot = _Plot(
        "Ranks of true partners", words, "rank of the true partner", (0.5, candidates + 0.5), top, percent=True
    )
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        x, y, width = plot.x(low) + 1, plot.y(share), plot.x(high) - plot.x(low) - 2
        plot.parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{plot.y(0) - y:.1f}"/>'
        )
    plot.line([0.5, candidates + 0.5], [1 / bins, 1 / bins], "chance")
    return plot.svg()


def _history_svg(history: Sequence[Mapping[str, float]], column: str) -> Markup | None:
    points = [(row["epoch"], row[column]) for row in history if column in row]
    if not points:
        return None
    epochs, values = zip(*points, strict=True)
    title = column.replace("_", " ").replace("mrr", "MRR")
    words = f"from {values[0]:.3f} in epoch {epochs[0]:g} to {values[-1]:.3f} in epoch {epochs[-1]:g}"
    plot = _Plot(title, words, "epoch", (min(epochs), max(epochs)), max(values) * 1.05, percent=False)
    plot.line(epochs, values, "ours")
    return plot.svg()

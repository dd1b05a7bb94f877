"""Parts of the page about comparisons and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pairmatch.evaluation.comparison import Comparison
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.diagnostics import (
    Calibration,
    Hubness,
    LearningCurve,
    Reliability,
    Shortcut,
    Slice,
)
from pairmatch.evaluation.evaluator import DEFAULT_KS
from pairmatch.evaluation.intervals import Metrics
from pairmatch.experiments.paper import PaperTables
from pairmatch.report.content import Report, Row, Section, Table
from pairmatch.report.page import write_report
from pairmatch.report.plots import Plot, percent

_FROZEN_LINES = ("Qwen3-VL, frozen, mean pooling", "EOS token", "Mean")
_KINDS = {"trained": "ours", "frozen": "frozen", "chance": "chance"}


def comparison_section(
    result: CrossValidation, baseline: str, *, title: str = "Beside other learners"
) -> Section:
    """Every learner with intervals, and whether it differs from one of them.

    Args:
        result: Of cross-validation, or of one split.
        baseline: The learner that the others are compared with.
        title: Heading.
    """
    comparable = len(result.learners) > 1 and len(set(result.columns["component"].tolist())) > 1
    tests = {one.name: one for one in result.comparisons(baseline)} if comparable else {}
    rows, data = [], []
    for learner in ("chance", *result.learners):
        figures, test = result.metrics(learner), tests.get(learner)
        cells = [*_metrics(figures)]
        if tests:
            cells += _difference(test)
        rows.append(Row(learner, cells, _KINDS.get(learner, "")))
        data.append(
            {"learner": learner, **figures.to_dict(), "comparison": test and test.to_dict()}
        )
    columns = [*(f"R@{k}" for k in result.ks), "MRR"]
    if tests:
        columns += [f"MRR beyond {baseline}", "p"]
    repeats = len(result.columns["query"]) / max(result.queries, 1)
    text = [
        f"{result.queries} queries, each tested {'once' if repeats == 1 else f'{repeats:.3g} times'} by learners that "
        "never saw these people. "
        + (
            f"p: paired randomisation test against {baseline}, corrected for {len(tests)} comparisons (Holm)."
            if tests
            else ""
        )
    ]
    best = [
        str(one)
        for one in tests.values()
        if one.p_value < 1 - one.confidence and one.difference > 0
    ]
    return Section(title, [*text, *best[:3]], Table("learner", columns, rows, title), data=data)


def _metrics(figures: Metrics) -> list[tuple[str, str]]:
    cells = []
    for k, value in figures.recall.items():
        bounds = figures.recall_interval.get(k)
        cells.append(
            (f"{100 * value:.1f}", f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}" if bounds else "")
        )
    bounds = figures.mrr_interval
    return [*cells, (f"{figures.mrr:.3f}", f"{bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else "")]


def _difference(test: Comparison | None) -> list[tuple[str, str]]:
    if test is None:
        return [("", ""), ("", "")]
    low, high = test.interval
    p = "< 0.001" if test.p_value < 0.001 else f"{test.p_value:.3f}"
    return [(f"{test.difference:+.3f}", f"{low:+.3f} to {high:+.3f}"), (p, "")]


def learning_section(curve: LearningCurve) -> Section:
    """MRR by number of training pairs, and what more of them would give."""
    bounds = [one.mrr_interval or (one.mrr, one.mrr) for one in curve.metrics]
    high = max(top for _, top in bounds) * 1.05
    plot = Plot(
        "MRR by number of training pairs",
        f"On the same people throughout. Shaded: {100 * curve.confidence:g} % intervals.",
        x=("training pairs", curve.pairs[0], curve.pairs[-1]),
        y=("MRR", 0, high),
    )
    plot.band("ours", list(curve.pairs), bounds)
    plot.line("ours", list(curve.pairs), [one.mrr for one in curve.metrics])
    plot.description = "; ".join(
        f"{one.mrr:.3f} with {n:.0f}" for n, one in zip(curve.pairs, curve.metrics, strict=True)
    )
    data = {
        "pairs": list(curve.pairs),
        "metrics": [one.to_dict() for one in curve.metrics],
        "mrr_per_doubling": curve.slope,
        "interval": list(curve.slope_interval),
    }
    return Section("Would more pairs help?", [str(curve)], plots=[plot], data=data)


def hubness_section(found: Sequence[tuple[str, Hubness]]) -> Section:
    """How evenly recommendations fall on people, by name of the ranking."""
    rows = [
        Row(
            name,
            [(f"{100 * one.never:.0f}", ""), (f"{one.gini:.2f}", ""), (f"{one.skewness:.1f}", "")],
            next((kind for key, kind in _KINDS.items() if name.startswith(key)), ""),
        )
        for name, one in found
    ]
    k = found[0][1].k
    table = Table("ranking", ["never shown, %", "Gini", "skewness"], rows, "Hubness")
    text = (
        f"Of everybody's first {k} candidates: the share of people whom nobody is shown, the Gini coefficient of how "
        "often people are shown (0: all alike), and its skewness. A few hubs that everybody is shown are a sign of a "
        "ranking by popularity."
    )
    data = [
        {
            "ranking": name,
            "k": one.k,
            "never": one.never,
            "gini": one.gini,
            "skewness": one.skewness,
        }
        for name, one in found
    ]
    return Section("Who is shown, and who never is", [text], table, data=data)


def calibration_section(calibration: Calibration, found: Reliability, candidates: int) -> Section:
    """Whether probabilities that are made of scores can be trusted."""
    top = max(float(found.predicted.max()), float(found.observed.max()), 1e-6) * 1.05
    plot = Plot(
        "Predicted and observed share of matches",
        "On the dotted line, probabilities mean what they say.",
        x=("predicted", 0, top),
        y=("observed", 0, top),
        in_percent=True,
        x_in_percent=True,
    )
    plot.line("chance", [0, top], [0, top])
    plot.line("ours", found.predicted.tolist(), found.observed.tolist())
    plot.key = [("ours", "test pairs"), ("chance", "perfect")]
    plot.description = "; ".join(
        f"{percent(o)} where {percent(p)} was predicted"
        for p, o in zip(found.predicted, found.observed, strict=True)
    )
    text = (
        f"{calibration.kind.capitalize()} scaling of validation scores, for a candidate drawn from {candidates}; "
        f"expected calibration error on test pairs {100 * found.expected_calibration_error:.2f} points, Brier score "
        f"{found.brier_score:.4f}."
    )
    data = {
        **calibration.to_dict(),
        "predicted": found.predicted.tolist(),
        "observed": found.observed.tolist(),
        "counts": found.counts.tolist(),
        "expected_calibration_error": found.expected_calibration_error,
        "brier_score": found.brier_score,
    }
    return Section("From scores to probabilities", [text], plots=[plot], data=data)


def slices_section(found: Sequence[Slice]) -> Section:
    """Metrics by attribute of the person who asks."""
    ks = list(found[0].metrics.recall)
    rows = [
        Row(
            f"{one.attribute}: {one.value}{' (few people)' if one.small else ''}",
            [*_metrics(one.metrics), (str(one.metrics.queries), "")],
        )
        for one in found
    ]
    table = Table(
        "who asks", [*(f"R@{k}" for k in ks), "MRR", "queries"], rows, "Results by attribute"
    )
    text = [
        "By attribute of the person who asks. Where intervals overlap, a difference may be luck."
    ]
    few = [f"{one.attribute} {one.value}" for one in found if one.small]
    if few:
        text.append(
            f"Too few people to say much about: {', '.join(few[:8])}{' …' if len(few) > 8 else ''}."
        )
    data = [
        {
            "attribute": s.attribute,
            "value": s.value,
            "small": s.small,
            "queries": s.metrics.queries,
            **s.metrics.to_dict(),
        }
        for s in found
    ]
    return Section("For whom it works", text, table, data=data)


def shortcuts_section(found: Sequence[Shortcut], chance_mrr: float) -> Section:
    """What simple traits explain of the ranking."""
    rows = [
        Row(one.name, [_metrics(one.alone)[-1], (f"{100 * one.explained:.1f}", "")])
        for one in found
    ]
    table = Table("trait", ["MRR of the trait alone", "explained, %"], rows, "Shortcuts")
    text = (
        "How well each trait alone finds partners (chance: "
        f"{chance_mrr:.3f}), and what share of what the scores say about who goes with whom it explains. A large share "
        "means that the ranking leans on it."
    )
    data = [{"trait": s.name, "alone": s.alone.to_dict(), "explained": s.explained} for s in found]
    return Section("Shortcuts", [text], table, data=data)


def paper_sections(tables: PaperTables) -> list[Section]:
    """The paper's tables: ours with intervals, the printed figures below each line."""
    by_table: dict[str, list[Row]] = {}
    data: dict[str, list[Any]] = {}
    for table, name, ours, printed in tables.rows():
        kind = "chance" if name == "Random" else "frozen" if name in _FROZEN_LINES else "ours"
        recall = [
            ("", "") if k not in ours.recall else cell
            for k, cell in zip(DEFAULT_KS, _metrics(ours), strict=False)
        ]
        rows = by_table.setdefault(table, [])
        rows.append(Row(name, [*recall, _metrics(ours)[-1]], kind))
        rows.append(
            Row(f"{name}, as printed", [(f"{value:.1f}", "") for value in printed] + [("", "")])
        )
        data.setdefault(table, []).append(
            {"line": name, **ours.to_dict(), "printed": list(printed)}
        )
    columns = [*(f"R@{k}" for k in DEFAULT_KS), "MRR"]
    sections = [
        Section(table, [], Table("line", columns, rows, table), data=data[table])
        for table, rows in by_table.items()
    ]
    if tables.without_table_2:
        sections.insert(1, Section("Table 2", [f"Does not apply. {tables.without_table_2}"]))
    return sections


def write_sweep_report(
    path: Path,
    result: CrossValidation,
    *,
    title: str,
    note: str = "",
    sections: Sequence[Section] = (),
) -> None:
    """Writes the page of a sweep or cross-validation, and a `.json` beside it.

    Args:
        path: Of the page.
        result: Every line's metrics.
        title: Heading.
        note: Words to put first.
        sections: Parts before the table of all lines.
    """
    baseline = "frozen" if "frozen" in result.learners else result.learners[0]
    best = max(
        result.learners,
        key=lambda learner: float(np.mean(result.values[result.index(learner)][:, -2])),
    )
    lead = [note] if note else []
    if best != baseline:
        found = next(one for one in result.comparisons(baseline) if one.name == best)
        lead.append(f"The best mean MRR: {found}")
    parts = [*sections, comparison_section(result, baseline, title="All lines")]
    facts: dict[str, Any] = {
        "Lines": str(len(result.learners)),
        "Splits": str(
            len(
                set(
                    zip(
                        result.columns["repeat"].tolist(),
                        result.columns["fold"].tolist(),
                        strict=True,
                    )
                )
            )
        ),
        "Seed": str(result.seed),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(
        path, Report(title, lead=" ".join(lead), sections=parts, facts=facts, notes=result.notes)
    )

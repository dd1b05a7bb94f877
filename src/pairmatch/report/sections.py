"""Sections of the page: comparisons, diagnostics, and the paper's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pairmatch.core.display import decimal
from pairmatch.core.text import how_often
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
from pairmatch.evaluation.diagnostics.slicing import SMALLEST_SLICE
from pairmatch.evaluation.intervals import Metrics
from pairmatch.evaluation.query_table import DEFAULT_KS
from pairmatch.evaluation.verdict import judge
from pairmatch.experiments.paper import PaperTables
from pairmatch.report.content import Report, Row, Section, Table
from pairmatch.report.page import write_report
from pairmatch.report.plots import Plot, percent

_FROZEN_ROWS = ("Qwen3-VL, frozen, mean pooling", "EOS token", "Mean")
_KINDS = {"trained": "ours", "frozen": "frozen", "chance": "chance"}
_MAX_SMALL_SLICES = 8


def comparison_section(
    result: CrossValidation, best: str, *, title: str, text: Sequence[str] = ()
) -> Section:
    """Figures of every learner, with tests against the frozen features and the best baseline.

    Args:
        result: Result of cross-validation, or of a single split.
        best: The best learner, as in a `Verdict`; its row is in bold.
        title: Heading.
        text: Further paragraphs.
    """
    references = result.references()
    tests = {
        reference: {test.name: test for test in result.comparisons(reference)}
        for reference in references
    }
    rows = []
    data = []
    for learner in ("chance", *result.learners):
        metrics = result.metrics(learner)
        cells = metric_cells(metrics)
        found = {reference: tests[reference].get(learner) for reference in references}
        for test in found.values():
            cells += _test_cells(test)
        rows.append(Row(learner, cells, _KINDS.get(learner, ""), is_best=learner == best))
        data.append(
            {
                "method": learner,
                "learner": learner,
                **metrics.to_dict(),
                "comparison": _first_dict(found.values()),
                "comparisons": [test.to_dict() for test in found.values() if test],
            }
        )
    columns = [*(f"R@{k}" for k in result.ks), "MRR"]
    for reference in references:
        columns += [f"MRR difference to {reference}", "p"]
    times = how_often(len(result.chance) / max(result.queries, 1))
    method = (
        f"{result.queries} queries, each tested {times} by learners that never saw these people."
    )
    if references:
        method += (
            f" p: paired test against {' or '.join(references)}, corrected for "
            f"{len(tests[references[0]])} comparisons (Holm). In bold: {best}."
        )
    table = Table("learner", columns, rows, title)
    return Section(title, [*text, method], table, data=data)


def _first_dict(tests: Iterable[Comparison | None]) -> dict[str, Any] | None:
    first = next(iter(tests), None)
    return None if first is None else first.to_dict()


def metric_cells(metrics: Metrics) -> list[tuple[str, str]]:
    """Recall at each K in percent, and MRR."""
    cells = []
    for k, value in metrics.recall.items():
        bounds = metrics.recall_interval.get(k)
        interval = f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}" if bounds else ""
        cells.append((f"{100 * value:.1f}", interval))
    return [*cells, _mrr_cell(metrics)]


def _mrr_cell(metrics: Metrics) -> tuple[str, str]:
    bounds = metrics.mrr_interval
    return f"{metrics.mrr:.3f}", f"{bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else ""


def _test_cells(test: Comparison | None) -> list[tuple[str, str]]:
    """The difference of MRR and its p-value; empty for the baseline and chance."""
    if test is None:
        return [("", ""), ("", "")]
    low, high = test.interval
    p = "< 0.001" if test.p_value < 0.001 else f"{test.p_value:.3f}"
    difference, lowest, highest = (
        decimal(value, sign=True) for value in (test.difference, low, high)
    )
    return [(difference, f"{lowest} to {highest}"), (p, "")]


def learning_section(curve: LearningCurve) -> Section:
    """MRR by number of training pairs, and the gain to expect from more pairs."""
    pairs = list(curve.pairs)
    bounds = [metrics.mrr_interval or (metrics.mrr, metrics.mrr) for metrics in curve.metrics]
    plot = Plot(
        "MRR by number of training pairs",
        f"All sizes are tested on the same people. Shaded: {100 * curve.confidence:g} % intervals.",
        x=("training pairs", pairs[0], pairs[-1]),
        y=("MRR", 0, max(high for _, high in bounds) * 1.05),
    )
    plot.band("ours", pairs, bounds)
    plot.line("ours", pairs, [metrics.mrr for metrics in curve.metrics])
    plot.description = "; ".join(
        f"{metrics.mrr:.3f} with {size:.0f}"
        for size, metrics in zip(pairs, curve.metrics, strict=True)
    )
    data = {
        "pairs": pairs,
        "metrics": [metrics.to_dict() for metrics in curve.metrics],
        "mrr_per_doubling": curve.slope,
        "interval": list(curve.slope_interval),
    }
    return Section("Learning curve", [str(curve)], plots=[plot], data=data)


def hubness_section(rankings: Sequence[tuple[str, Hubness]]) -> Section:
    """How evenly recommendations are spread over candidates, by name of the ranking."""
    rows = []
    data = []
    for name, hubs in rankings:
        cells = [(f"{100 * hubs.never:.0f}", ""), (f"{hubs.gini:.2f}", "")]
        cells.append((f"{hubs.skewness:.1f}", ""))
        kind = next((kind for key, kind in _KINDS.items() if name.startswith(key)), "")
        rows.append(Row(name, cells, kind))
        data.append(
            {
                "ranking": name,
                "k": hubs.k,
                "never": hubs.never,
                "gini": hubs.gini,
                "skewness": hubs.skewness,
            }
        )
    k = rankings[0][1].k
    table = Table("ranking", ["never shown, %", "Gini", "skewness"], rows, "Hubness")
    text = (
        f"Share of candidates that are in no top {k}, and Gini coefficient (0: equal) and skewness "
        f"of the number of top-{k} lists per candidate. A few hubs that appear in most lists "
        "suggest a ranking by popularity."
    )
    return Section("Exposure", [text], table, data=data)


def calibration_section(
    calibration: Calibration, reliability: Reliability, candidates: int
) -> Section:
    """Whether the probabilities derived from scores are reliable.

    Args:
        calibration: Fitted calibration.
        reliability: Reliability of its probabilities on the test pairs.
        candidates: Size of the gallery that the probabilities refer to.
    """
    predicted = reliability.predicted.tolist()
    observed = reliability.observed.tolist()
    top = max(*predicted, *observed, 1e-6) * 1.05
    plot = Plot(
        "Predicted and observed share of matches",
        "Perfectly calibrated probabilities lie on the dotted line.",
        x=("predicted", 0, top),
        y=("observed", 0, top),
        in_percent=True,
        x_in_percent=True,
    )
    plot.line("chance", [0, top], [0, top])
    plot.line("ours", predicted, observed)
    plot.key = [("ours", "test pairs"), ("chance", "perfect")]
    plot.description = "; ".join(
        f"{percent(share)} where {percent(probability)} was predicted"
        for probability, share in zip(predicted, observed, strict=True)
    )
    error = reliability.expected_calibration_error
    text = (
        f"{calibration.kind.capitalize()} scaling of validation scores, for a candidate drawn from "
        f"{candidates}. Expected calibration error on the test pairs: {100 * error:.2f} percentage "
        f"points; Brier score: {reliability.brier_score:.4f}."
    )
    data = {
        **calibration.to_dict(),
        "predicted": predicted,
        "observed": observed,
        "counts": reliability.counts.tolist(),
        "expected_calibration_error": error,
        "brier_score": reliability.brier_score,
    }
    return Section("Probabilities", [text], plots=[plot], data=data)


def slices_section(parts: Sequence[Slice]) -> Section:
    """Metrics by attribute of the query person."""
    rows = []
    data = []
    for part in parts:
        name = f"{part.attribute}: {part.value}{' (few people)' if part.small else ''}"
        rows.append(Row(name, [*metric_cells(part.metrics), (str(part.metrics.queries), "")]))
        data.append(
            {
                "attribute": part.attribute,
                "value": part.value,
                "small": part.small,
                "queries": part.metrics.queries,
                **part.metrics.to_dict(),
            }
        )
    columns = [*(f"R@{k}" for k in parts[0].metrics.recall), "MRR", "queries"]
    table = Table("query person", columns, rows, "Results by attribute")
    text = [
        "Metrics by attribute of the query person. If intervals overlap, the difference may be "
        f"due to chance. Groups of fewer than {SMALLEST_SLICE} people, and attributes with many "
        "different values, are not shown."
    ]
    small = [f"{part.attribute} {part.value}" for part in parts if part.small]
    if small:
        shown = ", ".join(small[:_MAX_SMALL_SLICES])
        more = " …" if len(small) > _MAX_SMALL_SLICES else ""
        text.append(f"Too few people to conclude much: {shown}{more}.")
    return Section("Results by group", text, table, data=data)


def shortcuts_section(results: Sequence[Shortcut], chance_mrr: float) -> Section:
    """How much of the ranking simple traits explain.

    Args:
        results: One per trait.
        chance_mrr: MRR of a random order.
    """
    rows = [
        Row(
            shortcut.name,
            [_mrr_cell(shortcut.metrics), (f"{100 * shortcut.explained:.1f}", "")],
        )
        for shortcut in results
    ]
    table = Table("trait", ["MRR of the trait only", "explained, %"], rows, "Shortcuts")
    text = (
        f"MRR of a ranking by each trait only (chance: {chance_mrr:.3f}), and the share of the "
        "interaction in the scores that the trait explains, popularity aside. A large share means "
        "that the ranking relies on the trait."
    )
    data = [
        {
            "trait": shortcut.name,
            "alone": shortcut.metrics.to_dict(),
            "explained": shortcut.explained,
        }
        for shortcut in results
    ]
    return Section("Shortcuts", [text], table, data=data)


def paper_sections(tables: PaperTables) -> list[Section]:
    """The paper's tables: our metrics with intervals, and the printed figures below each row."""
    rows_by_table: dict[str, list[Row]] = {}
    data: dict[str, list[Any]] = {}
    for table, name, ours, printed in tables.rows():
        kind = "chance" if name == "Random" else "frozen" if name in _FROZEN_ROWS else "ours"
        by_k = dict(zip(ours.recall, metric_cells(ours), strict=False))
        cells = [by_k.get(k, ("", "")) for k in DEFAULT_KS]
        printed_cells = [(f"{value:.1f}", "") for value in printed]
        rows = rows_by_table.setdefault(table, [])
        rows.append(Row(name, [*cells, _mrr_cell(ours)], kind))
        rows.append(Row(f"{name}, as printed", [*printed_cells, ("", "")]))
        data.setdefault(table, []).append(
            {"line": name, **ours.to_dict(), "printed": list(printed)}
        )
    columns = [*(f"R@{k}" for k in DEFAULT_KS), "MRR"]
    sections = [
        Section(table, [], Table("row", columns, rows, table), data=data[table])
        for table, rows in rows_by_table.items()
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
    run: str = "",
) -> None:
    """Writes the page of a sweep or cross-validation, and a `.json` file with the same figures.

    Args:
        path: Path to the page.
        result: Metrics of every combination and baseline.
        title: Heading.
        note: Text at the top of the page.
        sections: Sections before the table of all results.
        run: What produced the figures.
    """
    verdict = judge(result)
    report = Report(
        title,
        verdict=str(verdict),
        lead=note,
        sections=[
            *sections,
            comparison_section(result, verdict.best, title="All results"),
        ],
        facts={
            "Lines": str(len(result.learners)),
            "Splits": str(result.splits),
            "Seed": str(result.seed),
        },
        notes=result.notes,
        run=run,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_report(path, report)

"""Figures of people who were seen in training, beside those of new people."""

from __future__ import annotations

from pairmatch.evaluation.evaluation import MIXED, Evaluation
from pairmatch.report.content import Row, Section, Table
from pairmatch.report.sections import metric_cells


def seen_sections(evaluation: Evaluation) -> list[Section]:
    """Figures beside those of new people among new people: `Evaluation.seen` and `mixed`."""
    parts = {MIXED[name]: part for name, part in evaluation.mixed.items()}
    if evaluation.seen is not None:
        parts = {"People who were seen in training": evaluation.seen, **parts}
    sections = []
    for title, part in parts.items():
        columns = [*(f"R@{k}" for k in part.both.recall), "MRR"]
        rows = [Row(name, metric_cells(metrics)) for name, metrics in part.rows()]
        text = (
            f"{part.queries} queries of people who were there at training time, ranked without "
            "the partners that were known then. The figures at the top are those of new people."
            if part is evaluation.seen
            else f"{part.queries} queries of these people among each other."
        )
        sections.append(
            Section(title, [text], Table("", columns, rows, title), data=part.to_dict())
        )
    return sections

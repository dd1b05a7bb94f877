"""Whether fine-tuning was worth it, as a section of the page."""

from __future__ import annotations

from pairmatch.core.display import decimal
from pairmatch.matcher.finetuning import TuningVerdict
from pairmatch.report.content import Row, Section, Table
from pairmatch.report.sections import metric_cells

_TEXT = (
    "Both learn from the same training pairs, and are tested on the same pairs of people that "
    "neither has seen."
)
_FOLDS = "Every pair is tested once, by a backbone that was tuned on the other folds. "


def tuning_section(verdict: TuningVerdict, *, folds: int | None = None) -> Section:
    """Figures of a fine-tuned matcher and of the learner `best` on frozen features.

    Args:
        verdict: The verdict.
        folds: Number of folds that it rests on; None for one split.
    """
    test = verdict.comparison
    low, high = test.interval
    cell = (decimal(test.difference, sign=True), f"{decimal(low)} to {decimal(high)}")
    rows = [
        Row(
            name,
            [*metric_cells(metrics), cell if is_tuned else ("", "")],
            "ours" if is_tuned else "frozen",
            is_best=is_tuned == verdict.is_better,
        )
        for is_tuned, (name, metrics) in zip((True, False), verdict.rows(), strict=True)
    ]
    columns = [*(f"R@{k}" for k in verdict.tuned.ks), "MRR", "MRR difference"]
    title = "Was fine-tuning worth it?"
    text = [
        f"{_FOLDS if folds else ''}{_TEXT} {verdict.tuned.queries} queries.",
        *verdict.sentences,
    ]
    return Section(title, text, Table("matcher", columns, rows, title), data=verdict.to_dict())

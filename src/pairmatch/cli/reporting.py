"""Fits a matcher, evaluates it and writes its report, for several commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pairmatch.cli.options import write_json
from pairmatch.cli.output import echo
from pairmatch.cli.paths import claimed_folder
from pairmatch.cli.reading import list_skipped

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.data.splits import SplitPairs
    from pairmatch.evaluation.verdict import Verdict
    from pairmatch.matcher.matcher import Matcher

_LEARNING_CURVE_PAIRS = 1000
_LEAKAGE_ADVICE = (
    "Split 1 is training, 2 validation, 3 test. If one person has two ids, give their pairs the "
    "same `group`."
)


def fit_and_report(
    matcher: Matcher,
    parts: SplitPairs,
    output: Path,
    *,
    photos: bool,
    title: str,
    seen: bool = False,
    learning_curve: bool | None = None,
    json_file: Path | None = None,
    history: Path | None = None,
    tables: Sequence[Pairs] = (),
) -> Verdict:
    """Fits, evaluates on the test part, saves, and writes the report.

    Each result is saved before it is printed.
    """
    from pairmatch.data import leakage
    from pairmatch.report import (
        append_figures,
        diagnose,
        matcher_report,
        seen_section,
        write_report,
    )

    train, validation, test = parts
    everyone = {person for part in (*parts, parts.crossing) for person in part.profiles}
    pairs = sum(len(part) for part in (*parts, parts.crossing))
    echo(
        f"{pairs} pairs of {len(everyone)} people: {len(train)} to train, "
        f"{len(validation)} to validate, {len(test)} to test."
    )
    if parts.by != "component" or seen:
        echo(parts.reason)
    leaks = leakage(train, validation, test, progress=matcher.progress)
    if leaks:
        echo(f"{leaks}\n{_LEAKAGE_ADVICE}", lines=True, err=True, color="yellow")
    with claimed_folder(output, "matcher"):  # the store may be in it
        matcher.fit(train, validation)
        if seen:
            evaluation = matcher.evaluate(parts.with_seen, known=parts.known)
        else:
            evaluation = matcher.evaluate(test)
        for name in ("report.html", "report.json"):  # about the matcher that is replaced
            (output / name).unlink(missing_ok=True)
        try:
            matcher.save(output)
            list_skipped(output, tables)
            if json_file is not None:
                write_json(json_file, evaluation)
            if history is not None:
                append_figures(history, matcher, evaluation)
        finally:  # a full disk loses the files, not the evaluation
            heading = "Test pairs of people who are not in the training pairs:"
            echo(f"\n{heading}\n{evaluation}\n", lines=True)
    for note in matcher.notes:
        echo(note, err=True, color="yellow")
    if learning_curve is None:
        learning_curve = pairs <= _LEARNING_CURVE_PAIRS
    diagnosis = diagnose(matcher, *parts, with_learning_curve=learning_curve)
    beside = [] if evaluation.seen is None else [seen_section(evaluation.seen)]
    report = matcher_report(
        matcher,
        *parts,
        evaluation,
        title=title,
        photos=photos,
        verdict=str(diagnosis.verdict),
        sections=[*beside, *diagnosis.sections],
        notes=[leaks.summary()] if leaks else [],
    )
    write_report(output / "report.html", report)
    echo(str(diagnosis.verdict))
    if diagnosis.verdict.best != "trained" and diagnosis.verdict.is_sure:
        echo(f"To serve the better one, fit with --learner {diagnosis.verdict.best}.")
    echo(f"Saved the matcher in {output} and the report in {output / 'report.html'}.")
    return diagnosis.verdict

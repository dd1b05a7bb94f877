"""Fits a matcher, evaluates it and writes its report, for several commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pairmatch.cli.options import write_json
from pairmatch.cli.output import echo
from pairmatch.cli.paths import claimed_folder
from pairmatch.cli.run_file import RUN
from pairmatch.cli.tables import Tables
from pairmatch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pairmatch.data.leakage import Leakage
    from pairmatch.data.splits import SplitPairs
    from pairmatch.evaluation.crossvalidation import CrossValidation
    from pairmatch.evaluation.evaluation import Evaluation
    from pairmatch.matcher.matcher import Matcher
    from pairmatch.report.learners import LearnerComparison

_LEARNING_CURVE_PAIRS = 1000
COMPARED_PAIRS = 2000  # to fit the learner best for comparison, unless asked
_LEAKAGE_ADVICE = (
    "Split 1 is training, 2 validation, 3 test. If one person has two ids, give their pairs the "
    "same `group`."
)


def write_print(
    result: CrossValidation | Evaluation,
    tables: Sequence[Path],
    figures: Sequence[Path],
    run: str,
    *,
    needs_figures: bool = True,
) -> bool:
    """Writes tables and figures for print; returns whether there are figures.

    Args:
        result: What they show.
        tables: Files of tables.
        figures: Files of figures: the learners of a cross-validation, Recall@K of an evaluation.
        run: What produced the figures.
        needs_figures: Whether it is an error if matplotlib is missing.

    Raises:
        ConfigurationError: Figures are needed and matplotlib is missing.
    """
    from pairmatch.evaluation.evaluation import Evaluation
    from pairmatch.report.figures import learners_figure, recall_figure, save_figure
    from pairmatch.report.summary_table import SummaryTable

    table = SummaryTable.of(result, run=run)
    for path in tables:
        table.save(path)
    if not figures:
        return False
    try:
        drawn = recall_figure(result) if isinstance(result, Evaluation) else learners_figure(result)
    except ConfigurationError:
        if needs_figures:
            raise
        return False
    for path in figures:
        save_figure(drawn, path)
    return True


def fit_and_report(
    matcher: Matcher,
    parts: SplitPairs,
    output: Path,
    *,
    photos: bool,
    title: str,
    seen: bool = False,
    serve_winner: bool = False,
    compare: bool | None = None,
    learning_curve: bool | None = None,
    json_file: Path | None = None,
    history: Path | None = None,
    inputs: Tables | None = None,
) -> LearnerComparison:
    """Fits, evaluates on the test part, saves, and writes the report.

    Each result is saved before it is printed.

    Args:
        matcher: Matcher to fit; with `serve_winner`, it gets the learner that the validation pairs
            choose.
        parts: Pairs to train, validate and test on.
        output: Folder for the matcher and the report.
        photos: Whether the report shows people.
        title: Heading of the report.
        seen: Whether people who were seen in training are reported apart.
        serve_winner: Whether the validation pairs choose the learner.
        compare: Whether to compare with learners that take seconds, not only with baselines; None
            for up to 2,000 training pairs.
        learning_curve: Whether to draw a learning curve; None for up to 1,000 pairs.
        json_file: File for the figures.
        history: Table to append the figures to.
        inputs: What was read, to record it and to list what was skipped.
    """
    from pairmatch.cli.recording import Recorder
    from pairmatch.report import compare_learners, serve_best

    train, validation, test = parts
    leaks = describe_parts(parts, seen=seen, progress=matcher.progress)
    comparison = None
    recorder = Recorder(matcher.seed, parts if inputs is None else inputs.read)
    with claimed_folder(output, "matcher"):  # the store may be in it
        if serve_winner:
            echo("Fitting the recipe, the learner best and simple baselines …")
            comparison = serve_best(matcher, train, validation, test)
        else:
            matcher.fit(train, validation)
        evaluation = evaluate_and_save(
            matcher, parts, output, seen=seen, json_file=json_file, history=history, inputs=inputs
        )
        recorder.write(output)
    for note in matcher.notes:
        echo(note, err=True, color="yellow")
    if comparison is None:
        others = _compared_learners(len(train), compare)
        comparison = compare_learners(matcher, train, validation, test, others=others)
    pairs = sum(len(part) for part in (*parts, parts.crossing))
    advice = _write_report(
        matcher,
        parts,
        output,
        evaluation,
        comparison,
        title=title,
        photos=photos,
        leaks=leaks,
        learning_curve=pairs <= _LEARNING_CURVE_PAIRS if learning_curve is None else learning_curve,
        run=recorder.sentence,
    )
    echo(f"{comparison}\n\n{comparison.verdict()}{advice}", lines=True)
    echo(f"Saved the matcher in {output} and the report in {output / 'report.html'}.")
    return comparison


def describe_parts(parts: SplitPairs, *, seen: bool, progress: bool) -> Leakage:
    """Prints sizes of the parts and what they share; returns the latter."""
    from pairmatch.data import leakage

    train, validation, test = parts
    everyone = {person for part in (*parts, parts.crossing) for person in part.profiles}
    pairs = sum(len(part) for part in (*parts, parts.crossing))
    echo(
        f"{pairs} pairs of {len(everyone)} people: {len(train)} to train, "
        f"{len(validation)} to validate, {len(test)} to test."
    )
    if parts.by != "component" or seen:
        echo(parts.reason)
    leaks = leakage(train, validation, test, progress=progress)
    if leaks:
        echo(f"{leaks}\n{_LEAKAGE_ADVICE}", lines=True, err=True, color="yellow")
    return leaks


def evaluate_and_save(
    matcher: Matcher,
    parts: SplitPairs,
    output: Path,
    *,
    seen: bool,
    json_file: Path | None,
    history: Path | None,
    inputs: Tables | None,
) -> Evaluation:
    """Evaluates on the test part, saves matcher and figures, and prints the figures."""
    from pairmatch.report import append_figures

    if seen:
        evaluation = matcher.evaluate(parts.with_seen, known=parts.known)
    else:
        evaluation = matcher.evaluate(parts[2])
    for name in ("report.html", "report.json", RUN):  # about the matcher that is replaced
        (output / name).unlink(missing_ok=True)
    try:
        matcher.save(output)
        if inputs is not None:
            inputs.list_skipped(output)
        if json_file is not None:
            write_json(json_file, evaluation.to_dict())
        if history is not None:
            append_figures(history, matcher, evaluation)
    finally:  # a full disk loses the files, not the evaluation
        heading = "Test pairs of people who are not in the training pairs:"
        echo(f"\n{heading}\n{evaluation}\n", lines=True)
    return evaluation


def _compared_learners(train_pairs: int, compare: bool | None) -> tuple[str, ...]:
    """Names of the learners to compare with; says what takes long, or is left out."""
    from pairmatch.evaluation.crossvalidation import BASELINES
    from pairmatch.report.learners import SLOW_LEARNERS

    slow = " and ".join(SLOW_LEARNERS)
    if compare is None and train_pairs > COMPARED_PAIRS:
        echo(
            f"Comparing with baselines, without the learners {slow}: {train_pairs} training pairs "
            "take minutes. --compare fits them too."
        )
        return BASELINES
    if compare is False:
        return BASELINES
    echo(f"Comparing with the learners {slow}, and with baselines (--no-compare: baselines only) …")
    return (*SLOW_LEARNERS, *BASELINES)


def _write_report(
    matcher: Matcher,
    parts: SplitPairs,
    output: Path,
    evaluation: Evaluation,
    comparison: LearnerComparison,
    *,
    title: str,
    photos: bool,
    leaks: Leakage,
    learning_curve: bool,
    run: str,
) -> str:
    """Writes the page; returns how to serve the best learner, if it is not the matcher's."""
    from pairmatch.report import diagnose, matcher_report, seen_sections, write_report
    from pairmatch.report.learners import FIRST_STAGE

    diagnosis = diagnose(matcher, *parts, with_learning_curve=learning_curve, comparison=comparison)
    verdict = diagnosis.verdict
    advice = ""
    if verdict.best == FIRST_STAGE:
        advice = " To serve it, fit without --reranker."
    elif verdict.best != "trained" and verdict.beats_chance:
        advice = f" To serve it, fit with --learner {verdict.best}."
    report = matcher_report(
        matcher,
        *parts,
        evaluation,
        title=title,
        photos=photos,
        verdict=f"{verdict}{advice}",
        sections=[*seen_sections(evaluation), *diagnosis.sections],
        notes=[leaks.summary()] if leaks else [],
    )
    write_report(output / "report.html", replace(report, run=run))
    return advice

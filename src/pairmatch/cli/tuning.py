"""What `finetune` does: tunes, evaluates, saves, judges and reports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairmatch.cli.options import write_json
from pairmatch.cli.output import echo
from pairmatch.cli.paths import claimed_folder
from pairmatch.cli.recording import Recorder, provenance
from pairmatch.cli.reporting import describe_parts, evaluate_and_save
from pairmatch.cli.tables import Tables
from pairmatch.cli.tracking import tracked
from pairmatch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pairmatch.core.arrays import Ints
    from pairmatch.core.config import PartSpec
    from pairmatch.core.paired_features import PairedFeatures
    from pairmatch.data import Pairs
    from pairmatch.data.splits import SplitPairs
    from pairmatch.evaluation.evaluation import Evaluation
    from pairmatch.evaluation.query_table import QueryTable
    from pairmatch.finetuning.config import FinetuneConfig
    from pairmatch.finetuning.ranks import Ranks
    from pairmatch.matcher.finetuning import TuningVerdict
    from pairmatch.matcher.matcher import Matcher

_VALIDATION = 0.15  # share of the training pairs of a fold
_Tables = list["tuple[QueryTable, QueryTable]"]


class TuningRun:
    """One run of the command; in a run of several processes, only the main one writes and prints.

    Args:
        make: Makes a matcher with frozen backbones.
        config: Hyperparameters.
        tuned_with: `head` and `loss` that backbones are tuned with, if they are named.
        seed: Seed of the folds.
    """

    def __init__(
        self,
        make: Callable[[], Matcher],
        config: FinetuneConfig,
        tuned_with: Mapping[str, PartSpec],
        seed: int,
    ) -> None:
        from pairmatch.finetuning.ranks import Ranks

        self.make = make
        self.config = config
        self.tuned_with = tuned_with
        self.seed = seed
        self.ranks: Ranks = Ranks()

    def plan(self, parts: SplitPairs, folds: int, json_file: Path | None) -> None:
        """Prints what the command would do, and how long it takes on this machine."""
        from pairmatch.features.plan import format_duration
        from pairmatch.matcher.finetuning import plan_pipeline

        matcher = self.make()
        train, validation, _ = parts
        people = {person.id: person for part in parts for person in part.people}
        frozen = matcher.plan(list(people.values()))
        tuning = plan_pipeline(matcher.pipeline, train, validation, self.config, **self.tuned_with)
        # The features of all people, by each tuned backbone
        passes = [
            None if plan.person_seconds is None else len(people) * plan.person_seconds
            for plan in tuning
        ]
        once = [*(plan.seconds for plan in tuning), *passes]
        seconds = None
        if frozen.seconds is not None and None not in once:
            seconds = frozen.seconds + (1 + folds) * sum(value or 0.0 for value in once)
        if not self.ranks.is_main:
            return
        self._advise(parts)
        echo("\n".join([str(frozen), *map(str, tuning)]), lines=True)
        if seconds is None:
            echo("With the features of the tuned backbone: the time is unknown.")
        else:
            times = f", tuned {1 + folds} times ({folds} folds)" if folds else ""
            echo(
                f"With the features of the tuned backbone{times}: at most about "
                f"{format_duration(seconds)} on this machine."
            )
        if json_file is not None:
            plans = [plan.to_dict() for plan in tuning]
            figures = {**frozen.to_dict(), "finetuning": plans, "folds": folds, "seconds": seconds}
            write_json(json_file, {"plan": figures})

    def run(
        self,
        data: Pairs,
        parts: SplitPairs,
        folds: Sequence[Ints] | None,
        output: Path,
        *,
        checkpoints: Path | None,
        title: str,
        json_file: Path | None,
        inputs: Tables,
        track: Sequence[str] | None,
    ) -> None:
        """Tunes, saves, judges and reports.

        Args:
            data: All pairs, for the folds.
            parts: Pairs to train, validate and test on.
            folds: Positions of the pairs of each fold; None to judge by the test part.
            output: Folder of the matcher and the report.
            checkpoints: Folder of the checkpoints; None for one in `output` until the end.
            title: Heading of the report.
            json_file: File for the figures.
            inputs: What was read.
            track: Trackers of the matcher that is saved.
        """
        from pairmatch.matcher.finetuning import TuningVerdict, tuners_of

        matcher = self.make()
        tuners_of(matcher.pipeline, self.config, **self.tuned_with)  # fails before the work
        folder = checkpoints or output / "checkpoints"
        few = self._advise(parts)
        targets = track if self.ranks.is_main else None
        with claimed_folder(output, "matcher"), tracked(targets, matcher, parts, self.config):
            tables, evaluation = self._fit(matcher, parts, folder, output, json_file, inputs)
        if self.ranks.is_main:
            for note in matcher.notes:
                if note != few:
                    echo(note, err=True, color="yellow")
            echo(f"Saved the matcher in {output}.")
        if folds is not None:
            tables = list(self._of_folds(data, folds, folder))
        if not self.ranks.is_main or evaluation is None:
            return
        if checkpoints is None:
            shutil.rmtree(output / "checkpoints", ignore_errors=True)
        try:
            verdict = TuningVerdict.of(tables)
        except ConfigurationError as error:  # such as test pairs that all share a person
            echo(f"There is no verdict on fine-tuning: {error}", err=True, color="yellow")
            return
        if json_file is not None:
            write_json(json_file, {**evaluation.to_dict(), "finetuning": verdict.to_dict()})
        matcher.notes += verdict.sentences
        matcher.save(output)  # the model card has the verdict
        echo(f"\n{verdict}", lines=True)
        count = None if folds is None else len(folds)
        run = provenance(inputs.read, matcher.seed)
        _write_report(
            matcher, parts, output, evaluation, verdict, title=title, folds=count, run=run
        )
        echo(f"Saved the report in {output / 'report.html'}.")

    def _advise(self, parts: SplitPairs) -> str | None:
        """Describes the parts, and advises against few pairs; returns the advice."""
        from pairmatch.finetuning.finetuner import few_pairs_note

        few = few_pairs_note(len(parts[0]))
        if self.ranks.is_main:
            describe_parts(parts, seen=False, progress=False)
            if few is not None:
                echo(f"Advice against it: {few}", err=True, color="yellow")
        return few

    def _fit(
        self,
        matcher: Matcher,
        parts: SplitPairs,
        checkpoints: Path,
        output: Path,
        json_file: Path | None,
        inputs: Tables,
    ) -> tuple[_Tables, Evaluation | None]:
        """Tunes, evaluates and saves the matcher; no evaluation unless this is the main process."""
        recorder = Recorder(matcher.seed, inputs.read) if self.ranks.is_main else None
        tables = self._tuned(matcher, parts, checkpoints / "matcher")
        if recorder is None:
            return tables, None
        evaluation = evaluate_and_save(
            matcher,
            parts,
            output,
            seen=False,
            json_file=json_file,
            history=None,
            inputs=inputs,
        )
        recorder.write(output)
        return tables, evaluation

    def _of_folds(
        self, data: Pairs, folds: Sequence[Ints], checkpoints: Path
    ) -> Iterator[tuple[QueryTable, QueryTable]]:
        """Tables of every fold, each with a backbone that is tuned on the other folds."""
        everything = set(range(len(data.pairs)))
        for number, positions in enumerate(folds, 1):
            rest = data.subset(sorted(everything - set(positions.tolist())))
            train, validation, _ = rest.split(1 - _VALIDATION, _VALIDATION, seed=self.seed)
            if self.ranks.is_main:
                echo(f"Fold {number} of {len(folds)} …", err=True)
            parts = (train, validation, data.subset(positions.tolist()))
            yield from self._tuned(self.make(), parts, checkpoints / f"fold-{number}")

    def _tuned(self, matcher: Matcher, parts: Sequence[Pairs], folder: Path) -> _Tables:
        """Tunes a matcher, and ranks the test queries by it and by `best` on frozen features."""
        from pairmatch.core.interfaces import FittedHead
        from pairmatch.matcher.finetuning import tuning_tables

        train, validation, test = parts
        held_out = validation if len(validation) else None
        frozen: list[PairedFeatures] = []
        used = [part for part in (train, held_out, test) if part is not None]
        if self.ranks.is_main:  # it generates and pays metadata, and the others read them
            frozen = [matcher.paired_features(part) for part in used]
        self.ranks.wait()
        matcher.finetune(train, held_out, self.config, checkpoints=folder, **self.tuned_with)
        if not self.ranks.is_main:
            return []
        tuned = [matcher.paired_features(part) for part in used]
        served = FittedHead(matcher.fitted_head, second=matcher.second)
        return [tuning_tables(frozen, tuned, served, seed=matcher.seed)]


def _write_report(
    matcher: Matcher,
    parts: SplitPairs,
    output: Path,
    evaluation: Evaluation,
    verdict: TuningVerdict,
    *,
    title: str,
    folds: int | None,
    run: str,
) -> None:
    """Writes the page: the verdict first, then what `fit` shows of a matcher."""
    from dataclasses import replace

    from pairmatch.evaluation.crossvalidation import BASELINES
    from pairmatch.report import (
        compare_learners,
        diagnose,
        matcher_report,
        tuning_section,
        write_report,
    )

    comparison = compare_learners(matcher, *parts, others=BASELINES)
    learners, *others = diagnose(
        matcher, *parts, with_learning_curve=False, comparison=comparison
    ).sections
    sections: list[Any] = [
        tuning_section(verdict, folds=folds),
        replace(learners, title="Learners on the fine-tuned features"),
        *others,
    ]
    report = matcher_report(
        matcher,
        *parts,
        evaluation,
        title=title,
        verdict=" ".join(verdict.sentences),
        sections=sections,
    )
    write_report(output / "report.html", replace(report, run=run))

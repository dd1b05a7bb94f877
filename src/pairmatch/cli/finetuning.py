"""Tunes the backbone itself, where there are enough pairs for it: `finetune`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.fitting import BeforeOption, SplitByOption, TestOption, split_of
from pairmatch.cli.options import (
    BackboneName,
    Device,
    LearnerName,
    MaxUSD,
    MetadataName,
    Options,
    PairsFile,
    PoolerName,
    Preset,
    Profiles,
    Prompt,
    PromptAttributes,
    Quiet,
    Seed,
    Sides,
    Yes,
    check_names,
    parse_options,
    parts_of,
    show_progress,
    write_json,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import JSONFile, Output, StorePath, check_place, claimed_folder
from pairmatch.cli.reporting import describe_parts, evaluate_and_save
from pairmatch.cli.tables import PoolRule, Tables, reads_tables
from pairmatch.cli.tracking import Track, tracked

if TYPE_CHECKING:
    from pairmatch.core.arrays import Ints
    from pairmatch.core.paired_features import PairedFeatures
    from pairmatch.data import Pairs
    from pairmatch.data.splits import SplitPairs
    from pairmatch.evaluation.query_table import QueryTable
    from pairmatch.finetuning.config import FinetuneConfig
    from pairmatch.finetuning.ranks import Ranks
    from pairmatch.matcher.matcher import Matcher

_VALIDATION = 0.15  # share of the training pairs of a fold
_PART = "finetune"  # in --set finetune.OPTION=VALUE


@app.command(
    epilog="Example: pairmatch finetune pairs.csv --backbone hf-text --set hf-text.model=minilm "
    "--output tuned"
)
@reads_tables
def finetune(
    pairs: PairsFile,
    output: Output,
    inputs: Tables,
    preset: Preset = "best",
    pools: PoolRule = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    learner: LearnerName = None,
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    split_by: SplitByOption = None,
    before: BeforeOption = None,
    test: TestOption = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Judge by cross-validation with this number of folds, each tuned on its own.",
            show_default="one split",
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of epochs.", show_default="10")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of pairs per batch: more negatives, more time, no more memory.",
            show_default="64",
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of people in the backbone at once, which decides on memory.",
            show_default="16",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate of the adapter.", show_default="0.0001")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Rank of the adapter.", show_default="16")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the checkpoints, from which the same command resumes.",
            show_default="checkpoints in OUTPUT, removed at the end",
        ),
    ] = None,
    json_file: JSONFile = None,
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tunes the backbone with LoRA, fits a matcher, and says whether it was worth it.

    The verdict compares it with the learner best on frozen features, on people held out.
    With fewer than 1,000 training pairs, fit is advised instead: it takes seconds.
    """
    check_place(json_file, "--json", output=output, store=store)
    by_time = before is not None or split_by == "time"
    if by_time and (before is None or split_by not in (None, "time")):
        raise typer.BadParameter("--split-by time and --before DATE belong together.")
    if test is not None and (by_time or split_by is not None):
        raise typer.BadParameter("--test names the test pairs: omit --split-by and --before.")
    if folds is not None and (by_time or split_by is not None or test is not None):
        raise typer.BadParameter(
            "--folds tests every pair of PAIRS once: omit --test, --split-by and --before."
        )
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "rank": rank,
    }
    config = _config(settings or (), given, seed)
    parts = parts_of(
        backbones=backbone,
        poolers=pooler,
        metadata=metadata,
        learner=learner,
        settings=[text for text in settings or () if not text.startswith(f"{_PART}.")],
    )

    from pairmatch.matcher.matcher import Matcher

    def make() -> Matcher:
        return Matcher.preset(
            preset,
            **parts,
            seed=seed,
            prompt=prompt,
            prompt_attributes=prompt_attribute or (),
            store=store,
            device=device,
            allow_upload=yes,
            max_usd=max_usd,
            progress=show_progress(quiet),
        )

    data, *others = (
        inputs.pairs(path, profiles=profiles, sides=sides, pools=pools)
        for path in (pairs, *([] if test is None else [test]))
    )
    run = _Run(make, config, checkpoints or output / "checkpoints", track)
    split = split_of(data, others, split_by, before, seed=seed)
    positions = None if folds is None else data.folds(folds, seed=seed)  # fails before the work
    run.fit(split, output, json_file=json_file, inputs=inputs)
    if positions is not None:
        run.tables = list(run.of_folds(data, positions, seed))
    run.judge(json_file)
    if checkpoints is None and run.ranks.is_main:
        shutil.rmtree(output / "checkpoints", ignore_errors=True)


class _Run:
    """One run of the command; in a run of several processes, only the main one writes and prints.

    Args:
        make: Makes a matcher with frozen backbones.
        config: Hyperparameters.
        checkpoints: Folder of the checkpoints.
        track: Trackers of the matcher that is saved.
    """

    def __init__(
        self,
        make: Callable[[], Matcher],
        config: FinetuneConfig,
        checkpoints: Path,
        track: Sequence[str] | None,
    ) -> None:
        from pairmatch.finetuning.ranks import Ranks

        self.make = make
        self.config = config
        self.checkpoints = checkpoints
        self.track = track
        self.ranks: Ranks = Ranks()
        self.tables: list[tuple[QueryTable, QueryTable]] = []
        self.figures: dict[str, Any] = {}

    def fit(
        self, parts: SplitPairs, output: Path, *, json_file: Path | None, inputs: Tables
    ) -> None:
        """Tunes, evaluates and saves the matcher."""
        from pairmatch.cli.recording import Recorder
        from pairmatch.finetuning.finetuner import few_pairs_note

        few = few_pairs_note(len(parts[0]))
        if self.ranks.is_main:
            describe_parts(parts, seen=False, progress=False)
            if few is not None:
                echo(f"Advice against it: {few}", err=True, color="yellow")
        matcher = self.make()
        targets = self.track if self.ranks.is_main else None
        with claimed_folder(output, "matcher"), tracked(targets, matcher, parts, self.config):
            recorder = Recorder(matcher, inputs.read) if self.ranks.is_main else None
            tested = self._tuned(matcher, parts, self.checkpoints / "matcher")
            if recorder is None:
                return
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
        self.figures = evaluation.to_dict()
        self.tables = tested
        for note in matcher.notes:
            if note != few:
                echo(note, err=True, color="yellow")
        echo(f"Saved the matcher in {output}.")

    def of_folds(
        self, data: Pairs, folds: Sequence[Ints], seed: int
    ) -> Iterator[tuple[QueryTable, QueryTable]]:
        """Tables of every fold, each with a backbone that is tuned on the other folds."""
        everything = set(range(len(data.pairs)))
        for number, positions in enumerate(folds, 1):
            rest = data.subset(sorted(everything - set(positions.tolist())))
            train, validation, _ = rest.split(1 - _VALIDATION, _VALIDATION, seed=seed)
            if self.ranks.is_main:
                echo(f"Fold {number} of {len(folds)} …", err=True)
            parts = (train, validation, data.subset(positions.tolist()))
            yield from self._tuned(self.make(), parts, self.checkpoints / f"fold-{number}")

    def _tuned(
        self, matcher: Matcher, parts: Sequence[Pairs], folder: Path
    ) -> list[tuple[QueryTable, QueryTable]]:
        """Tunes a matcher, and ranks the test queries by it and by `best` on frozen features."""
        from pairmatch.matcher.finetuning import tuning_tables

        train, validation, test = parts
        held_out = validation if len(validation) else None
        frozen: list[PairedFeatures] = []
        used = [part for part in (train, held_out, test) if part is not None]
        if self.ranks.is_main:  # it generates and pays metadata, and the others read them
            frozen = [matcher.paired_features(part) for part in used]
        self.ranks.wait()
        matcher.finetune(train, held_out, self.config, checkpoints=folder)
        if not self.ranks.is_main:
            return []
        tuned = [matcher.paired_features(part) for part in used]
        return [tuning_tables(frozen, tuned, matcher.fitted_head, seed=matcher.seed)]

    def judge(self, json_file: Path | None) -> None:
        """Prints the verdict, and adds it to the figures."""
        from pairmatch.matcher.finetuning import TuningVerdict

        if not self.ranks.is_main:
            return
        verdict = TuningVerdict.of(self.tables)
        if json_file is not None:
            write_json(json_file, {**self.figures, "finetuning": verdict.to_dict()})
        echo(f"\n{verdict}", lines=True)


def _config(settings: Sequence[str], given: dict[str, Any], seed: int) -> FinetuneConfig:
    """Hyperparameters from options and from `--set finetune.OPTION=VALUE`."""
    from dataclasses import fields

    from pairmatch.finetuning.config import FinetuneConfig

    own = parse_options([text for text in settings if text.startswith(f"{_PART}.")])
    options = own.get(_PART, {})
    names = [field.name for field in fields(FinetuneConfig) if field.name != "seed"]
    check_names(options, names, "option of finetune")
    named = {name: value for name, value in given.items() if value is not None}
    return FinetuneConfig(**{**options, **named, "seed": seed})

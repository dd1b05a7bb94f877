"""Tunes the backbone itself, where there are enough pairs for it: `finetune`."""

from __future__ import annotations

from collections.abc import Sequence
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
    RerankerName,
    Seed,
    Sides,
    Yes,
    check_names,
    parse_options,
    parts_of,
    show_progress,
)
from pairmatch.cli.paths import JSONFile, OutputExceptPlan, StorePath, check_place
from pairmatch.cli.planning import PlanOnly, check_output
from pairmatch.cli.tables import PoolRule, Tables, reads_tables
from pairmatch.cli.tracking import Track
from pairmatch.cli.tuning import TuningRun

if TYPE_CHECKING:
    from pairmatch.finetuning.config import FinetuneConfig
    from pairmatch.matcher.matcher import Matcher

_PART = "finetune"  # in --set finetune.OPTION=VALUE


@app.command(
    epilog="Example: pairmatch finetune pairs.csv --backbone hf-text --set hf-text.model=minilm "
    "--output tuned"
)
@reads_tables
def finetune(
    pairs: PairsFile,
    inputs: Tables,
    output: OutputExceptPlan = None,
    preset: Preset = "best",
    pools: PoolRule = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    learner: LearnerName = None,
    reranker: RerankerName = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="Head that it is tuned with.", show_default="residual"),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", help="Loss that it is tuned with.", show_default="infonce"),
    ] = None,
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
    plan_only: PlanOnly = False,
    json_file: JSONFile = None,
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tunes the backbone with LoRA, fits a matcher, and says whether it was worth it.

    The verdict compares it with the learner best on frozen features, on people held out.
    With fewer than 1,000 training pairs, fit is advised instead: it takes seconds.
    The output folder holds the matcher and report.html.
    """
    check_output(output, plan_only)
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
        head=head,
        loss=loss,
        learner=learner,
        reranker=reranker,
        settings=[text for text in settings or () if not text.startswith(f"{_PART}.")],
    )

    if head is None and "head" in parts:
        raise typer.BadParameter("--set head.… needs --head.")
    tuned_with: dict[str, Any] = {
        name: parts.pop(name) for name in ("head", "loss") if name in parts
    }

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
    run = TuningRun(make, config, tuned_with, seed)
    split = split_of(data, others, split_by, before, seed=seed)
    positions = None if folds is None else data.folds(folds, seed=seed)  # fails before the work
    if plan_only or output is None:
        run.plan(split, folds or 0, json_file)
        return
    run.run(
        data,
        split,
        positions,
        output,
        checkpoints=checkpoints,
        title=pairs.name,
        json_file=json_file,
        inputs=inputs,
        track=track,
    )


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

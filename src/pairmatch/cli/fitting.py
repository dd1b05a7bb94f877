"""From pairs to a matcher and its evaluation: `fit`, `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    BackboneName,
    Device,
    Engine,
    HeadName,
    LearnerName,
    LossName,
    MatcherFolder,
    MaxUSD,
    MetadataName,
    Options,
    PairsFile,
    Photos,
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
    create_engine,
    load_matcher,
    parts_of,
    show_progress,
    write_json,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import (
    FigureFiles,
    HistoryFile,
    JSONFile,
    OutputExceptPlan,
    StorePath,
    TableFiles,
    check_place,
)
from pairmatch.cli.planning import (
    Accelerator,
    GPUs,
    PlanOnly,
    USDPerHour,
    check_output,
    check_plan,
)
from pairmatch.cli.recording import provenance
from pairmatch.cli.reporting import fit_and_report, write_print
from pairmatch.cli.tables import PoolRule, Tables, reads_tables
from pairmatch.cli.tracking import Track, tracked

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.data.splits import SplitBy, SplitPairs

SplitByOption = Annotated[
    Literal["component", "people", "pool", "time"] | None,
    typer.Option(
        "--split-by",
        help="What a split keeps together: connected pairs; or single people, which leaves out the "
        "pairs between parts; or pools (events, regions) with their people; or time: test on what "
        "came later (--before).",
        show_default="component, or people in a log where nearly all pairs are connected",
    ),
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        metavar="DATE",
        help="Split by time: train on pairs before this date or time (ISO 8601), test on later "
        "ones.",
    ),
]
TestOption = Annotated[
    Path | None,
    typer.Option(
        "--test",
        metavar="FILE",
        help="Pairs file to test on, instead of a part of PAIRS.",
        show_default=False,
    ),
]
SeenOption = Annotated[
    bool | None,
    typer.Option(
        "--seen/--no-seen",
        help="Report people who were seen in training too, beside new ones.",
        show_default="with --before and --test",
    ),
]
KnownOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Pairs file that was known in training: its people are reported apart, its matches "
        "are no candidates.",
    ),
]


@app.command(
    epilog="Example: pairmatch fit pairs.csv --images photos --backbone clip --output couples"
)
@reads_tables
def fit(
    pairs: PairsFile,
    inputs: Tables,
    output: OutputExceptPlan = None,
    preset: Preset = "paper",
    pools: PoolRule = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    head: HeadName = None,
    loss: LossName = None,
    learner: LearnerName = None,
    reranker: RerankerName = None,
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    split_by: SplitByOption = None,
    before: BeforeOption = None,
    test: TestOption = None,
    seen: SeenOption = None,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "local",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    photos: Photos = False,
    compare: Annotated[
        bool | None,
        typer.Option(
            help="Compare with the learners best and contrastive too: two more fits.",
            show_default="for up to 2,000 training pairs",
        ),
    ] = None,
    learning_curve: Annotated[
        bool | None,
        typer.Option(
            help="Report how the result grows with the number of pairs; needs nine more fits.",
            show_default="for up to 1,000 pairs",
        ),
    ] = None,
    plan_only: PlanOnly = False,
    gpus: GPUs = 1,
    usd_per_hour: USDPerHour = None,
    accelerator: Accelerator = None,
    json_file: JSONFile = None,
    history: HistoryFile = None,
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Fits a matcher to pairs, evaluates it on people held out, and writes a report.

    Splits by person, generates metadata, extracts features, learns the head.
    The output folder holds the matcher and report.html.
    """
    check_plan(plan_only, gpus, usd_per_hour, accelerator)
    check_output(output, plan_only)
    check_place(json_file, "--json", output=output, store=store)
    check_place(history, "--history", output=output, store=store)
    by_time = before is not None or split_by == "time"
    if by_time and (before is None or split_by not in (None, "time")):
        raise typer.BadParameter("--split-by time and --before DATE belong together.")
    if test is not None and (by_time or split_by is not None):
        raise typer.BadParameter("--test names the test pairs: omit --split-by and --before.")
    arguments = parts_of(
        backbones=backbone,
        poolers=pooler,
        metadata=metadata,
        head=head,
        loss=loss,
        learner=learner,
        reranker=reranker,
        settings=settings,
    )

    from pairmatch.matcher.matcher import Matcher

    matcher = Matcher.preset(
        preset,
        **arguments,
        seed=seed,
        prompt=prompt,
        prompt_attributes=prompt_attribute or (),
        store=store,
        device=device,
        allow_upload=yes,
        max_usd=max_usd,
        progress=show_progress(quiet),
        engine=create_engine(engine),
    )
    data, *others = (
        inputs.pairs(path, profiles=profiles, sides=sides, pools=pools)
        for path in (pairs, *([] if test is None else [test]))
    )
    if plan_only or output is None:
        people = {person.id: person for part in (data, *others) for person in part.people}
        planned = matcher.plan(
            list(people.values()), gpus=gpus, usd_per_hour=usd_per_hour, accelerator=accelerator
        )
        echo(str(planned), lines=True)
        if json_file is not None:
            write_json(json_file, {"plan": planned.to_dict()})
        return
    parts = split_of(data, others, split_by, before, seed=seed)
    with tracked(track, matcher, parts):
        fit_and_report(
            matcher,
            parts,
            output,
            seen=by_time or test is not None if seen is None else seen,
            photos=photos,
            title=pairs.name,
            compare=compare,
            learning_curve=learning_curve,
            json_file=json_file,
            history=history,
            inputs=inputs,
        )


@app.command(epilog="Example: pairmatch evaluate couples other-pairs.csv --json figures.json")
@reads_tables
def evaluate(
    matcher: MatcherFolder,
    pairs: PairsFile,
    inputs: Tables,
    known: KnownOption = None,
    pools: PoolRule = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="K of Recall@K; repeatable.")
    ] = None,
    target: Annotated[
        Literal["match", "a_likes", "b_likes"],
        typer.Option(help="What is to be found: the match, or all to whom a side said yes."),
    ] = "match",
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    json_file: JSONFile = None,
    tables: TableFiles = None,
    figures: FigureFiles = None,
    history: HistoryFile = None,
    quiet: Quiet = False,
) -> None:
    """Evaluates a saved matcher on pairs that it was not trained on."""
    from pairmatch.evaluation.verdict import judge_evaluation
    from pairmatch.report import append_figures

    check_place(json_file, "--json", store=store)
    check_place(history, "--history", store=store)
    for option, files in (("--table", tables), ("--figure", figures)):
        for file in files or ():
            check_place(file, option, store=store)
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )

    data, *others = (
        inputs.pairs(path, profiles=profiles, sides=sides, pools=pools)
        for path in (pairs, *([] if known is None else [known]))
    )
    evaluation = loaded.evaluate(
        data, known=others[0] if others else None, target=target, ks=k or None
    )
    try:
        if json_file is not None:
            write_json(json_file, evaluation.to_dict())
        if history is not None:
            append_figures(history, loaded, evaluation)
        if tables or figures:
            run = provenance([data, *others], loaded.seed, matcher)
            write_print(evaluation, tables or (), figures or (), run)
    finally:  # a full disk loses the files, not the evaluation
        echo(f"{judge_evaluation(evaluation)}\n{evaluation}", lines=True)


def split_of(
    data: Pairs, test: Sequence[Pairs], by: SplitBy | None, before: str | None, *, seed: int
) -> SplitPairs:
    """The split that the options of `fit` ask for.

    Raises:
        DataError: There are fewer than two matches of new people to test on.
    """
    from pairmatch.core.errors import DataError
    from pairmatch.data.time_splits import split_before_test

    if test:
        parts = split_before_test(data, test[0], validation=0.15, seed=seed)
    elif before is not None:
        parts = data.split_by_time(before)
    else:
        return data.split(by=None if by == "time" else by, seed=seed)
    if len(parts[2]) < 2:
        advice = "with other pairs" if test else "with another date, or --split-by people"
        raise DataError(
            f"{parts.reason} To see how well it works for new people, two matches of new people "
            f"are needed at least: try {advice}."
        )
    return parts

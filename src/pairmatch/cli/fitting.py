"""From pairs to a matcher and its evaluation: `demo`, `fit`, `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    BackboneName,
    Device,
    HeadName,
    Images,
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
    Seed,
    Sides,
    Yes,
    load_matcher,
    parts_of,
    show_progress,
    write_json,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import (
    HistoryFile,
    JSONFile,
    Output,
    StorePath,
    check_place,
    claimed_folder,
)
from pairmatch.cli.reading import (
    Columns,
    FollowLinks,
    KeepWords,
    MostSkipped,
    OnBadRowOption,
    PoolRule,
    TextColumns,
    list_skipped,
    read_pairs,
    table_options,
)

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.data.splits import SplitBy, SplitPairs
    from pairmatch.evaluation.verdict import Verdict
    from pairmatch.matcher.matcher import Matcher

_LEARNING_CURVE_PAIRS = 1000
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
_LEAST_LOG_PEOPLE = 250
_LEAKAGE_ADVICE = (
    "Split 1 is training, 2 validation, 3 test. If one person has two ids, give their pairs the "
    "same `group`."
)


@app.command(epilog="Example: pairmatch demo --output demo")
def demo(
    output: Output = Path("pairmatch-demo"),
    pairs: Annotated[
        int,
        typer.Option(
            min=20,
            max=100_000,
            help="Number of pairs to draw; with --log, of people of each side.",
        ),
    ] = 400,
    log: Annotated[
        bool,
        typer.Option(
            "--log", help="Simulate the log of an app instead: likes and matches of 90 days."
        ),
    ] = False,
    seed: Seed = 0,
    photos: Photos = True,
    quiet: Quiet = False,
) -> None:
    """Runs the whole workflow offline, on drawn people with a planted taste.

    Draws the people, fits a matcher, evaluates it, and writes a report.
    """
    if log:
        _log_demo(output, pairs, seed=seed, quiet=quiet)
        return

    from pairmatch.data import Pairs
    from pairmatch.experiments.demo import draw_people
    from pairmatch.matcher.matcher import Matcher

    echo(f"Drawing {2 * pairs} people …")
    with claimed_folder(output, "matcher"):
        file = draw_people(output / "people", pairs=pairs, seed=seed)
    data = Pairs.read(file, progress=show_progress(quiet))
    matcher = Matcher(
        backbone="descriptor",
        seed=seed,
        store=output / "store.sqlite",
        progress=show_progress(quiet),
    )
    title = "Demo: people drawn by pairmatch"
    verdict = _fit_and_report(
        matcher, data.split(seed=seed), output, photos=photos, title=title, learning_curve=False
    )
    query = file.parent / "images" / f"{data.ids_a[0]}.jpg"
    echo()
    echo("Try next:")
    echo(
        f"  pairmatch recommend {output} --query {query} "
        f"--gallery {file.parent / 'candidates.csv'} "
        '-k 5 --where "age >= 30"'
    )
    command = "--backbone descriptor"
    if verdict.best != "trained":
        command += f" --learner {verdict.best}"
        echo(f"  pairmatch fit {file} {command} --output {output}-{verdict.best}")
    echo(f"  pairmatch fit your-pairs.csv {command} --output couples")


def _log_demo(output: Path, people: int, *, seed: int, quiet: bool) -> None:
    """Writes a simulated log as tables, reads them, fits on 60 days, and tests on later ones."""
    from pairmatch.data import Pairs
    from pairmatch.experiments.simulated_people import LogSettings
    from pairmatch.experiments.simulation import simulate_log
    from pairmatch.matcher.matcher import Matcher

    if people < _LEAST_LOG_PEOPLE:
        raise typer.BadParameter(f"--log needs --pairs {_LEAST_LOG_PEOPLE} or more.")
    log = simulate_log(
        LogSettings(people_a=people, people_b=people, outcomes=20 * people), seed=seed
    )
    echo(f"Simulating the log of an app: {log} …")
    with claimed_folder(output, "matcher"):
        rows, profiles = log.write(output / "people")
    data = Pairs.read(rows, profiles=profiles)
    matcher = Matcher.preset(
        "best",
        backbone="attributes",
        metadata=None,
        seed=seed,
        store=output / "store.sqlite",
        progress=show_progress(quiet),
    )
    before = log.at_day(60)
    parts = data.split_by_time(before)
    title = "Demo: the log of an app, simulated by pairmatch"
    _fit_and_report(
        matcher, parts, output, seen=True, photos=False, title=title, learning_curve=False
    )
    best = log.best_mrr(log.rows_of(parts[2]), day=75)
    echo(f"By the simulation's true probabilities, the best MRR of new people is {best:.3f}.")
    echo()
    echo("The same on the command line:")
    echo(
        f"  pairmatch fit {rows} --profiles {profiles} --backbone attributes --metadata none "
        f"--preset best --before {before:%Y-%m-%d} --seed {seed} --output {output}"
    )


@app.command(
    epilog="Example: pairmatch fit pairs.csv --images photos --backbone clip --output couples"
)
def fit(
    pairs: PairsFile,
    output: Output,
    preset: Preset = "paper",
    images: Images = None,
    follow_links: FollowLinks = False,
    keep_words: KeepWords = None,
    columns: Columns = None,
    text_columns: TextColumns = None,
    on_bad_row: OnBadRowOption = "stop",
    most_skipped: MostSkipped = 0.05,
    pools: PoolRule = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    head: HeadName = None,
    loss: LossName = None,
    learner: LearnerName = None,
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    split_by: SplitByOption = None,
    before: BeforeOption = None,
    test: TestOption = None,
    seen: SeenOption = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    photos: Photos = False,
    learning_curve: Annotated[
        bool | None,
        typer.Option(
            help="Report how the result grows with the number of pairs; needs nine more fits.",
            show_default="for up to 1,000 pairs",
        ),
    ] = None,
    json_file: JSONFile = None,
    history: HistoryFile = None,
    quiet: Quiet = False,
) -> None:
    """Fits a matcher to pairs, evaluates it on people held out, and writes a report.

    Splits by person, generates metadata, extracts features, learns the head.
    The output folder holds the matcher and report.html.
    """
    check_place(json_file, "--json", output=output, store=store)
    check_place(history, "--history", output=output, store=store)
    by_time = before is not None or split_by == "time"
    if by_time and (before is None or split_by not in (None, "time")):
        raise typer.BadParameter("--split-by time and --before DATE belong together.")
    if test is not None and (by_time or split_by is not None):
        raise typer.BadParameter("--test names the test pairs: omit --split-by and --before.")
    parts = parts_of(
        backbones=backbone,
        poolers=pooler,
        metadata=metadata,
        head=head,
        loss=loss,
        learner=learner,
        settings=settings,
    )

    from pairmatch.matcher.matcher import Matcher

    matcher = Matcher.preset(
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
    options = table_options(
        images=images,
        follow_links=follow_links,
        keep_words=keep_words,
        columns=columns,
        text_columns=text_columns,
        on_bad_row=on_bad_row,
        most_skipped=most_skipped,
        quiet=quiet,
    )
    data, *others = (
        read_pairs(path, profiles=profiles, sides=sides, options=options, pools=pools)
        for path in (pairs, *([] if test is None else [test]))
    )
    _fit_and_report(
        matcher,
        _split(data, others, split_by, before, seed=seed),
        output,
        seen=by_time or test is not None if seen is None else seen,
        photos=photos,
        title=pairs.name,
        learning_curve=learning_curve,
        json_file=json_file,
        history=history,
        tables=[data, *others],
    )


@app.command(epilog="Example: pairmatch evaluate couples other-pairs.csv --json figures.json")
def evaluate(
    matcher: MatcherFolder,
    pairs: PairsFile,
    known: KnownOption = None,
    images: Images = None,
    follow_links: FollowLinks = False,
    keep_words: KeepWords = None,
    columns: Columns = None,
    text_columns: TextColumns = None,
    on_bad_row: OnBadRowOption = "stop",
    most_skipped: MostSkipped = 0.05,
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
    history: HistoryFile = None,
    quiet: Quiet = False,
) -> None:
    """Evaluates a saved matcher on pairs that it was not trained on."""
    from pairmatch.evaluation.verdict import judge_evaluation
    from pairmatch.report import append_figures

    check_place(json_file, "--json", store=store)
    check_place(history, "--history", store=store)
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )

    options = table_options(
        images=images,
        follow_links=follow_links,
        keep_words=keep_words,
        columns=columns,
        text_columns=text_columns,
        on_bad_row=on_bad_row,
        most_skipped=most_skipped,
        quiet=quiet,
    )
    data, *others = (
        read_pairs(path, profiles=profiles, sides=sides, options=options, pools=pools)
        for path in (pairs, *([] if known is None else [known]))
    )
    evaluation = loaded.evaluate(
        data, known=others[0] if others else None, target=target, ks=k or None
    )
    try:
        if json_file is not None:
            write_json(json_file, evaluation)
        if history is not None:
            append_figures(history, loaded, evaluation)
    finally:  # a full disk loses the files, not the evaluation
        echo(f"{judge_evaluation(evaluation)}\n{evaluation}", lines=True)


def _split(
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


def _fit_and_report(
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

"""From pairs to a matcher and its figures: `demo`, `fit`, `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    BackboneName,
    Device,
    HeadName,
    Images,
    JSONFile,
    LearnerName,
    LossName,
    MatcherFolder,
    MaxUSD,
    MetadataName,
    Options,
    Output,
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
    StorePath,
    Yes,
    load_matcher,
    parts_of,
    show_progress,
    training_of,
    write_json,
)

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.evaluation.evaluator import Evaluation
    from pairmatch.matcher.matcher import Matcher

_LEARNING_CURVE_PAIRS = 1000


@app.command(epilog="Example: pairmatch demo --output demo")
def demo(
    output: Output = Path("pairmatch-demo"),
    pairs: Annotated[int, typer.Option(min=20, help="Pairs of people to draw.")] = 400,
    seed: Seed = 0,
    photos: Photos = True,
    quiet: Quiet = False,
) -> None:
    """The whole job offline: draws people with a planted taste, learns it, and ranks candidates."""
    from pairmatch.data import Pairs
    from pairmatch.experiments.demo import draw_people
    from pairmatch.matcher.matcher import Matcher

    typer.echo(f"Drawing {2 * pairs} people …")
    file = draw_people(output / "people", pairs=pairs, seed=seed)
    data = Pairs.read(file, progress=show_progress(quiet))
    matcher = Matcher(
        backbone="descriptor",
        training=training_of({}, seed),
        store=output / "store.sqlite",
        progress=show_progress(quiet),
    )
    title = "Demo: people drawn by pairmatch"
    _fit_and_report(
        matcher, data, output, seed=seed, photos=photos, title=title, learning_curve=False
    )
    query = file.parent / "images" / f"{data.ids_a[0]}.jpg"
    typer.echo(
        "\nTry next:\n"
        f"  pairmatch recommend {output} --query {query} --gallery {file.parent / 'candidates.csv'} "
        '-k 5 --where "age >= 30"\n'
        "  pairmatch fit your-pairs.csv --backbone descriptor --output couples"
    )


@app.command(
    epilog="Example: pairmatch fit pairs.csv --images photos --backbone clip --output couples"
)
def fit(
    pairs: PairsFile,
    output: Output,
    preset: Preset = "paper",
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    head: HeadName = "mlp",
    loss: LossName = "infonce",
    learner: LearnerName = None,
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    photos: Photos = False,
    learning_curve: Annotated[
        bool | None,
        typer.Option(
            help="Put into the report what more pairs would give: nine more fits.",
            show_default="up to 1,000 pairs",
        ),
    ] = None,
    json_file: JSONFile = None,
    quiet: Quiet = False,
) -> None:
    """Splits by person, annotates, embeds, trains, evaluates on the test split, saves, and reports."""
    if preset == "robust":
        learner = learner or "robust"
    parts = parts_of(backbone, pooler, metadata, head, loss, settings, learner)
    training = training_of(parts.pop("training"), seed)

    from pairmatch.data import Pairs
    from pairmatch.matcher.matcher import Matcher

    matcher = Matcher.preset(
        preset,
        **parts,
        training=training,
        prompt=prompt,
        prompt_attributes=prompt_attribute or (),
        store=store,
        device=device,
        allow_upload=yes,
        max_usd=max_usd,
        progress=show_progress(quiet),
    )
    data = Pairs.read(
        pairs, images=images, profiles=profiles, sides=sides, progress=show_progress(quiet)
    )  # type: ignore[arg-type]
    evaluation = _fit_and_report(
        matcher,
        data,
        output,
        seed=seed,
        photos=photos,
        title=pairs.name,
        learning_curve=learning_curve,
    )
    if json_file is not None:
        write_json(json_file, evaluation)


@app.command(epilog="Example: pairmatch evaluate couples other-pairs.csv --json figures.json")
def evaluate(
    matcher: MatcherFolder,
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="K of Recall@K; repeatable.")
    ] = None,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    json_file: JSONFile = None,
    quiet: Quiet = False,
) -> None:
    """Measures a saved matcher on other pairs."""
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )

    from pairmatch.data import Pairs

    data = Pairs.read(
        pairs, images=images, profiles=profiles, sides=sides, progress=show_progress(quiet)
    )  # type: ignore[arg-type]
    evaluation = loaded.evaluate(data, ks=k or None)
    typer.echo(str(evaluation))
    if json_file is not None:
        write_json(json_file, evaluation)


def _fit_and_report(
    matcher: Matcher,
    data: Pairs,
    output: Path,
    *,
    seed: int,
    photos: bool,
    title: str,
    learning_curve: bool | None = None,
) -> Evaluation:
    from pairmatch.data import leakage
    from pairmatch.report import diagnose, matcher_report, write_report

    train, validation, test = data.split(seed=seed)
    typer.echo(
        f"{len(data)} pairs of {len(data.people)} people: {len(train)} to train, {len(validation)} to validate, "
        f"{len(test)} to test."
    )
    leaks = leakage(train, validation, test, progress=matcher.progress)
    if leaks:
        advice = "Split 1 is training, 2 validation, 3 test. One person under two ids? Give both the same `group`."
        typer.secho(f"{leaks}\n{advice}", err=True, fg="yellow")
    matcher.fit(train, validation)
    evaluation = matcher.evaluate(test)
    typer.echo(f"\nTest pairs, by people who were never trained on:\n{evaluation}\n")
    for note in matcher.notes:
        typer.secho(note, err=True, fg="yellow")
    matcher.save(output)
    if learning_curve is None:
        learning_curve = len(data) <= _LEARNING_CURVE_PAIRS
    sections = (
        diagnose(matcher, train, validation, test, with_learning_curve=learning_curve)
        if matcher.head
        else []
    )
    for text in sections[0].text[1:] if sections else ():
        typer.echo(text)
    report = matcher_report(
        matcher,
        train,
        validation,
        test,
        evaluation,
        title=title,
        photos=photos,
        sections=sections,
        notes=[leaks.summary()] if leaks else [],
    )
    write_report(output / "report.html", report)
    typer.echo(f"Saved the matcher in {output}, the report in {output / 'report.html'}.")
    return evaluation

"""The whole workflow on synthetic people: `demo`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import Photos, Quiet, Seed, show_progress
from pairmatch.cli.output import echo
from pairmatch.cli.paths import Output, claimed_folder
from pairmatch.cli.reporting import fit_and_report

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.matcher.matcher import Matcher

_LEAST_LOG_PEOPLE = 250
_SHOWN = 5


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

    Draws the people, fits the recipe and other learners, chooses one of them on validation pairs,
    evaluates it on test pairs, and writes a report.
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
    matcher = Matcher.preset(
        "best",
        backbone="descriptor",
        seed=seed,
        store=output / "store.sqlite",
        progress=show_progress(quiet),
    )
    parts = data.split(seed=seed)
    title = "Demo: people drawn by pairmatch"
    comparison = fit_and_report(
        matcher,
        parts,
        output,
        photos=photos,
        title=title,
        serve_winner=True,
        learning_curve=False,
    )
    person, partner, rule, k = _suggestion(matcher, parts[2], data)
    query = file.parent / "images" / f"{person}.jpg"
    echo()
    echo(f"Try next. Candidates for {person}, whose partner is {partner}:")
    echo(
        f"  pairmatch recommend {quote(str(output))} --query {quote(str(query))} "
        f"--gallery {quote(str(file.parent / 'candidates.csv'))} -k {k} --where {quote(rule)}"
    )
    common = f"--backbone descriptor --learner {comparison.learner}"
    echo("The same matcher on the command line, and one for your own pairs:")
    echo(
        f"  pairmatch fit {quote(str(file))} {common} --seed {seed} "
        f"--output {quote(f'{output}-{comparison.learner}')}"
    )
    echo(f"  pairmatch fit your-pairs.csv {common} --output couples")


def _suggestion(matcher: Matcher, test: Pairs, data: Pairs) -> tuple[str, str, str, int]:
    """A test person and their partner, a rule that holds for the partner, and a K that shows them.

    The first test person whose partner is among the first 5 of all candidates that the rule leaves;
    if there is none, the one whose partner ranks highest.
    """
    gallery = matcher.gallery([data.profiles[person] for person in data.ids_b])
    found = []
    for pair in test.pairs:
        age = int(data.profiles[pair.b].attributes["age"])
        rule = f"age >= {age // 10 * 10}"
        ranked = matcher.recommend(data.profiles[pair.a], gallery, len(gallery), where=rule)
        rank = next(person.rank for person in ranked if person.profile.id == pair.b)
        found.append((pair.a, pair.b, rule, max(rank, _SHOWN)))
    return min(found, key=lambda suggestion: suggestion[-1])


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
    fit_and_report(
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

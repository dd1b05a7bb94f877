"""The whole workflow on synthetic people: `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import Photos, Quiet, Seed, show_progress
from pairmatch.cli.output import echo
from pairmatch.cli.paths import Output, claimed_folder
from pairmatch.cli.reporting import fit_and_report

_LEAST_LOG_PEOPLE = 250


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
    verdict = fit_and_report(
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

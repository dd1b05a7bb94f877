"""What is kept of people: `annotate`, `forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    Images,
    MaxUSD,
    Options,
    PairsFile,
    Profiles,
    Quiet,
    Sides,
    StorePath,
    Yes,
    parse_options,
    show_progress,
)
from pairmatch.errors import ConfigurationError, unknown_name


@app.command(epilog="Example: pairmatch annotate pairs.csv --images photos --dry-run")
def annotate(
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    metadata: Annotated[str, typer.Option("--metadata", help="Who writes attributes from photos.")] = "gpt-5-nano",
    settings: Options = None,
    store: StorePath = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls and estimate the cost; ask nobody.")] = False,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    retry_refused: Annotated[bool, typer.Option(help="Ask again where there was a refusal.")] = False,
    quiet: Quiet = False,
) -> None:
    """Writes metadata for everybody's photo into the store, each photo once ever."""
    options = parse_options(settings or ())
    unknown = [part for part in options if part != "metadata"]
    if unknown:
        raise ConfigurationError(" ".join(unknown_name("part in --set", part, ["metadata"]) for part in unknown))

    from pairmatch import registry
    from pairmatch.data import Pairs
    from pairmatch.metadata import annotate as write
    from pairmatch.metadata import estimate
    from pairmatch.store import Store

    generator = registry.create("metadata", (metadata, options.get("metadata", {})))
    data = Pairs.read(pairs, images=images, profiles=profiles, sides=sides, progress=show_progress(quiet))  # type: ignore[arg-type]
    with Store(store) as opened:
        if dry_run:
            typer.echo(str(estimate(data.people, generator, opened, retry_refused=retry_refused)))
            return
        result = write(
            data.people,
            generator,
            opened,
            allow_upload=yes,
            max_usd=max_usd,
            retry_refused=retry_refused,
            progress=show_progress(quiet),
        )
    typer.echo(str(result))
    for person, refusal in result.refused.items():
        typer.echo(f"  {person}: {refusal.kind}: {refusal.detail}")


@app.command(epilog="Example: pairmatch forget anna-17 ben-4 --gallery gallery --slates slates")
def forget(
    ids: Annotated[list[str], typer.Argument(metavar="IDS", help="Ids of the people to erase.")],
    store: StorePath = None,
    gallery: Annotated[list[Path] | None, typer.Option(help="Gallery to erase them from too; repeatable.")] = None,
    slates: Annotated[list[Path] | None, typer.Option(help="Slates to erase them from too; repeatable.")] = None,
) -> None:
    """Erases people from the store, and from galleries and slates: features, metadata and every trace of their ids."""
    from pairmatch.gallery import forget as erase
    from pairmatch.store import Store

    with Store(store) as opened:
        gone = erase(ids, store=opened, galleries=gallery or (), slates=slates or ())
        path = opened.path
    count = len(set(ids))
    if gone.store is not None:
        typer.echo(
            f"Erased {gone.store.people} of {count} people from {path}: {gone.store.features} features, "
            f"{gone.store.metadata} metadata outcomes."
        )
    for name, people in gone.galleries.items():
        typer.echo(f"Erased {people} of {count} people from the gallery {name}.")
    for name, rows in gone.slates.items():
        typer.echo(f"Erased {rows} rows from the slates {name}.")

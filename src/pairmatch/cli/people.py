"""What is kept of people: `annotate`, `forget`."""

from __future__ import annotations

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


@app.command(epilog="Example: pairmatch forget anna-17 ben-4")
def forget(
    ids: Annotated[list[str], typer.Argument(metavar="IDS", help="Ids of the people to erase.")],
    store: StorePath = None,
) -> None:
    """Erases people from the store: features, metadata and every trace of their ids."""
    from pairmatch.store import Store

    with Store(store) as opened:
        gone = opened.forget(ids)
    typer.echo(
        f"Erased {gone.people} of {len(set(ids))} people from {opened.path}: {gone.features} features, "
        f"{gone.metadata} metadata outcomes."
    )

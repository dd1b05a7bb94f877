"""What is kept of people: `annotate`, `forget`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    file_to_write,
    parse_options,
    show_progress,
)
from pairmatch.core.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    from pairmatch.core.types import Refusal

_NAMED = 5


@app.command(epilog="Example: pairmatch annotate pairs.csv --images photos --dry-run")
def annotate(
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    metadata: Annotated[
        str, typer.Option("--metadata", help="Who writes attributes from photos.")
    ] = "gpt-5-nano",
    settings: Options = None,
    store: StorePath = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count calls and estimate the cost; ask nobody.")
    ] = False,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    retry_refused: Annotated[
        bool, typer.Option(help="Ask again where there was a refusal.")
    ] = False,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Submit a batch, or collect those that are done: half the price, slower.",
        ),
    ] = False,
    corrections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read what people say about themselves; ask nobody."),
    ] = None,
    import_file: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Read exported metadata; ask nobody."),
    ] = None,
    export_file: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write the store's metadata to .csv or .jsonl; ask nobody.",
            dir_okay=False,
            callback=file_to_write,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Writes metadata for everybody's photo into the store, each photo once ever."""
    options = parse_options(settings or ())
    unknown = [part for part in options if part != "metadata"]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("part in --set", part, ["metadata"]) for part in unknown)
        )

    from pairmatch.core import registry
    from pairmatch.data import Pairs
    from pairmatch.io.store import Store
    from pairmatch.metadata import annotate as write
    from pairmatch.metadata import correct, estimate, export_metadata, import_metadata

    generator = registry.create("metadata", (metadata, options.get("metadata", {})))
    data = Pairs.read(
        pairs, images=images, profiles=profiles, sides=sides, progress=show_progress(quiet)
    )  # type: ignore[arg-type]
    with Store(store) as opened:
        if import_file or corrections or export_file:
            if import_file is not None:
                count = import_metadata(import_file, data.people, generator, opened)
                typer.echo(f"{count} outcomes are new from {import_file}.")
            if corrections is not None:
                count = correct(corrections, data.people, generator, opened)
                typer.echo(f"{count} people have corrections in {corrections}.")
            if export_file is not None:
                count = export_metadata(export_file, data.people, generator, opened)
                typer.echo(f"{count} rows are in {export_file}, which only you can read.")
            return
        if dry_run:
            typer.echo(
                str(
                    estimate(
                        data.people, generator, opened, retry_refused=retry_refused, batch=batch
                    )
                )
            )
            return
        choices: dict[str, Any] = {
            "allow_upload": yes,
            "max_usd": max_usd,
            "retry_refused": retry_refused,
        }
        if batch:
            from pairmatch.metadata.batch import annotate_in_batches

            run = annotate_in_batches(data.people, generator, opened, **choices)
            result, words = run.annotation, str(run)
        else:
            result = write(data.people, generator, opened, progress=show_progress(quiet), **choices)
            words = str(result)
        typer.echo(words)
        for line in _listed(result.refused):
            typer.echo(f"  {line}")
        for spent in opened.spent():
            typer.echo(f"In this store so far, {spent}.")


def _listed(refused: Mapping[str, Refusal]) -> Iterator[str]:
    """Refusals, those with the same words in one line."""
    people: dict[tuple[str, str], list[str]] = {}
    for person, refusal in refused.items():
        if refusal.kind not in ("pending", "stopped"):  # counted above; there is nothing to read
            people.setdefault((refusal.kind, refusal.detail), []).append(person)
    for (kind, detail), names in people.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more}: {kind}: {detail}"


@app.command(epilog="Example: pairmatch forget anna-17 ben-4 --gallery gallery --slates slates")
def forget(
    ids: Annotated[list[str], typer.Argument(metavar="IDS", help="Ids of the people to erase.")],
    store: StorePath = None,
    gallery: Annotated[
        list[Path] | None, typer.Option(help="Gallery to erase them from too; repeatable.")
    ] = None,
    slates: Annotated[
        list[Path] | None, typer.Option(help="Slates to erase them from too; repeatable.")
    ] = None,
) -> None:
    """Erases people from the store, and from galleries and slates.

    Features, metadata and every trace of their ids.
    """
    from pairmatch.gallery import forget as erase
    from pairmatch.io.store import Store

    with Store(store) as opened:
        gone = erase(ids, store=opened, galleries=gallery or (), slates=slates or ())
        path = opened.path
    count = len(set(ids))
    if gone.store is not None:
        typer.echo(
            f"Erased {gone.store.people} of {count} people from {path}: {gone.store.features} features, "
            f"{gone.store.metadata} metadata outcomes, {gone.store.corrections} corrections."
        )
    for name, people in gone.galleries.items():
        typer.echo(f"Erased {people} of {count} people from the gallery {name}.")
    for name, rows in gone.slates.items():
        typer.echo(f"Erased {rows} rows from the slates {name}.")

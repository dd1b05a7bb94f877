"""What is stored about people: `annotate`, `forget`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    Engine,
    MaxUSD,
    Options,
    PairsFile,
    Profiles,
    Quiet,
    Sides,
    Yes,
    check_names,
    create_engine,
    metadata_spec,
    parse_options,
    show_progress,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import ExistingStorePath, StorePath, check_place, file_to_write
from pairmatch.cli.planning import GPUs, PlanOnly, USDPerHour, check_plan
from pairmatch.cli.reading import read_ids
from pairmatch.cli.tables import Tables, reads_tables
from pairmatch.core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from pairmatch.core.interfaces import MetadataGenerator
    from pairmatch.core.types import Profile, Refusal
    from pairmatch.io.store import Store

_NAMED = 5


def _export_to_write(path: Path | None) -> Path | None:
    from pairmatch.metadata.exchange import check_export

    file = file_to_write(path)
    if file is not None:
        check_export(file)
    return file


@app.command(epilog="Example: pairmatch annotate pairs.csv --images photos --dry-run")
@reads_tables
def annotate(
    pairs: PairsFile,
    inputs: Tables,
    profiles: Profiles = None,
    sides: Sides = 2,
    metadata: Annotated[
        str | None,
        typer.Option(
            "--metadata",
            help="Generator that writes attributes from photos.",
            show_default="gpt-5-nano, or its successor once it is shut down",
        ),
    ] = None,
    settings: Options = None,
    engine: Engine = "local",
    store: StorePath = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Count calls and estimate the cost; generate nothing."),
    ] = False,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    retry_refused: Annotated[
        bool, typer.Option(help="Retry photos that were refused before.")
    ] = False,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Submit a batch, or collect batches that are done: half the price, but slower.",
        ),
    ] = False,
    corrections: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Import what people say about themselves; generate nothing."
        ),
    ] = None,
    import_file: Annotated[
        Path | None,
        typer.Option("--import", metavar="FILE", help="Import metadata; generate nothing."),
    ] = None,
    export_file: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Export stored metadata to .csv or .jsonl; generate nothing.",
            callback=_export_to_write,
        ),
    ] = None,
    plan_only: PlanOnly = False,
    gpus: GPUs = 1,
    usd_per_hour: USDPerHour = None,
    quiet: Quiet = False,
) -> None:
    """Generates metadata for people's photos and stores it; stored photos are skipped."""
    check_plan(plan_only, gpus, usd_per_hour)
    check_place(export_file, "--export", store=store)
    options = parse_options(settings or ())
    check_names(options, ["metadata"], "part in --set")

    from pairmatch.core import registry
    from pairmatch.io.store import Store, store_path

    only_exports = export_file is not None and not (import_file or corrections)
    if only_exports:
        Store(store, create=False).close()  # an error before the pairs are read
    spec = metadata_spec(metadata, options.get("metadata", {}))
    if spec is None:
        raise ConfigurationError("annotate needs a generator: name one with --metadata.")
    generator = registry.create("metadata", spec)
    cluster = create_engine(engine)
    if cluster is not None and not plan_only:
        from pairmatch.distributed import RayMetadata

        generator = RayMetadata(generator, cluster)
    data = inputs.pairs(pairs, profiles=profiles, sides=sides)
    is_missing = not store_path(store).exists()
    with (
        TemporaryDirectory() as empty,
        # An estimate creates no store
        Store(empty if (dry_run or plan_only) and is_missing else store) as opened,
    ):
        if import_file or corrections or export_file:
            _exchange(data.people, generator, opened, import_file, corrections, export_file)
        elif plan_only:
            from pairmatch.matcher.planning import plan_metadata

            planned = plan_metadata(
                data.people,
                generator,
                opened,
                gpus=gpus,
                usd_per_hour=usd_per_hour,
                retry_refused=retry_refused,
                batch=batch,
            )
            echo(str(planned), lines=True)
        elif dry_run:
            from pairmatch.metadata import estimate

            cost = estimate(
                data.people, generator, opened, retry_refused=retry_refused, batch=batch
            )
            echo(str(cost))
        else:
            _generate(
                data.people,
                generator,
                opened,
                batch=batch,
                progress=show_progress(quiet),
                allow_upload=yes,
                max_usd=max_usd,
                retry_refused=retry_refused,
            )


def _exchange(
    people: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    import_file: Path | None,
    corrections: Path | None,
    export_file: Path | None,
) -> None:
    """Imports metadata and corrections, then exports metadata."""
    from pairmatch.metadata import correct, export_metadata, import_metadata

    if import_file is not None:
        count = import_metadata(import_file, people, generator, store)
        echo(f"Imported {count} new outcomes from {import_file}.")
    if corrections is not None:
        count = correct(corrections, people, generator, store)
        echo(f"Imported corrections of {count} people from {corrections}.")
    if export_file is not None:
        count = export_metadata(export_file, people, generator, store)
        echo(f"Exported {count} rows to {export_file}, readable only by you.")


def _generate(
    people: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    *,
    batch: bool,
    progress: bool,
    **options: Any,
) -> None:
    """Generates metadata, at once or in batches, and prints refusals and costs."""
    if batch:
        from pairmatch.metadata.batch import annotate_in_batches

        run = annotate_in_batches(people, generator, store, **options)
        echo(str(run), lines=True)
        result = run.annotation
    else:
        from pairmatch.metadata import annotate as annotate_people

        result = annotate_people(people, generator, store, progress=progress, **options)
        echo(str(result))
    for line in _refusals(result.refused):
        echo(f"  {line}")
    for spent in store.spent():
        echo(f"Total of this store: {spent}.")


def _refusals(refused: Mapping[str, Refusal]) -> Iterator[str]:
    """Refused people, those with the same reason on one line."""
    people: dict[tuple[str, str], list[str]] = {}
    for person, refusal in refused.items():
        if refusal.kind not in ("pending", "stopped"):  # already counted, and without a reason
            people.setdefault((refusal.kind, refusal.detail), []).append(person)
    for (kind, detail), names in people.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more}: {kind}: {detail}"


@app.command(epilog="Example: pairmatch forget anna-17 ben-4 --gallery gallery --slates slates")
def forget(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IDS",
            help="Ids of the people to erase.",
            callback=lambda texts: read_ids(texts or []),
            show_default=False,
        ),
    ] = None,
    queries: Annotated[
        bool,
        typer.Option("--queries", help="Erase what the store keeps of photos of `recommend`."),
    ] = False,
    store: ExistingStorePath = None,
    gallery: Annotated[
        list[Path] | None, typer.Option(help="Gallery to erase them from; repeatable.")
    ] = None,
    slates: Annotated[
        list[Path] | None, typer.Option(help="Slates to erase them from; repeatable.")
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Database to erase them from, as export --to names it, beside those that the "
            "galleries were exported to; repeatable.",
        ),
    ] = None,
    exclusions: Annotated[
        list[Path] | None,
        typer.Option(help="Exclusions of a service to erase them from; repeatable."),
    ] = None,
) -> None:
    """Erases people from the store, from galleries, slates, exports and exclusions.

    Erases their features, metadata, corrections and every trace of their ids, and their rows in
    the databases that the galleries were exported to.
    Ids that are in none of these places are an error, after all others are erased.
    """
    from pairmatch.io.store import Store, store_path

    path = store_path(store)
    if queries:
        with Store(path, create=False) as opened:
            found = opened.forget_queries()
        echo(
            f"Erased query photos from {path}: {found.features} features, {found.metadata} "
            "metadata outcomes."
        )
    elif not ids:
        raise ConfigurationError("Name the ids to erase, or --queries.")
    if ids:
        places = {
            "galleries": gallery or (),
            "slates": slates or (),
            "exports": export or (),
            "exclusions": exclusions or (),
        }
        _forget(ids, path, store is not None, places)


def _forget(
    ids: list[str],
    path: Path,
    is_named: bool,
    places: Mapping[str, Sequence[Any]],
) -> None:
    """Erases people everywhere, and prints where they were."""
    from pairmatch.gallery import forget as erase

    # Without --store, the default store need not exist if other places are named
    is_stored = is_named or path.exists() or not any(places.values())
    erased = erase(ids, store=path if is_stored else None, **places)
    count = len(set(ids))
    if erased.store is not None:
        echo(
            f"Erased {erased.store.people} of {count} people from {path}: "
            f"{erased.store.features} features, {erased.store.metadata} metadata outcomes, "
            f"{erased.store.corrections} corrections."
        )
    for folder, people in erased.galleries.items():
        echo(f"Erased {people} of {count} people from the gallery {folder}.")
    for folder, rows in erased.slates.items():
        echo(f"Erased {rows} rows from the slates {folder}.")
    for address, people in erased.exports.items():
        echo(f"Erased {people} of {count} people from {address}.")
    for file, pairs in erased.exclusions.items():
        echo(f"Erased {pairs} pairs from the exclusions {file}.")
    if erased.unknown:
        names = ", ".join(map(repr, erased.unknown))
        raise DataError(
            f"Found nowhere: {names}. Check these ids, and name every place that may hold them "
            "(--store, --gallery, --slates, --export, --exclusions). The places named hold no "
            "traces of "
            "people who were deleted earlier."
        )

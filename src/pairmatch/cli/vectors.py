"""Vectors for other systems: `embed`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pairmatch.cli.application import app
from pairmatch.cli.galleries import People
from pairmatch.cli.options import (
    BackboneName,
    Device,
    Engine,
    MaxUSD,
    MetadataName,
    Options,
    PoolerName,
    Quiet,
    Yes,
    create_engine,
    load_matcher,
    parts_of,
    show_progress,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import StorePath, check_place, file_to_write
from pairmatch.cli.planning import (
    Accelerator,
    GPUs,
    PlanOnly,
    USDPerHour,
    check_output,
    check_plan,
)
from pairmatch.cli.ranking import Where
from pairmatch.cli.tables import Tables, reads_tables
from pairmatch.core.errors import ConfigurationError


def _vectors_to_write(path: Path | None) -> Path | None:
    from pairmatch.gallery.vectors import check_vectors_file

    if path is None:
        return None
    check_vectors_file(path)
    return file_to_write(path) or path


@app.command(
    epilog="Example: pairmatch embed people.csv --matcher couples --side b --output vectors.parquet"
)
@reads_tables
def embed(
    people: People,
    inputs: Tables,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write: .parquet, .arrow or .npz; required, except with --plan.",
            callback=_vectors_to_write,
        ),
    ] = None,
    matcher: Annotated[
        Path | None,
        typer.Option(help="Folder of a saved matcher; without it, features of --backbone."),
    ] = None,
    side: Annotated[Literal["a", "b"], typer.Option(help="Side that these people are on.")] = "b",
    kind: Annotated[
        Literal["embedding", "feature"] | None,
        typer.Option(
            help="embedding: after the head, unit length; feature: before the head.",
            show_default="embedding with --matcher, else feature",
        ),
    ] = None,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    where: Where = None,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    engine: Engine = "local",
    max_usd: MaxUSD = None,
    yes: Yes = False,
    plan_only: PlanOnly = False,
    gpus: GPUs = 1,
    usd_per_hour: USDPerHour = None,
    accelerator: Accelerator = None,
    quiet: Quiet = False,
) -> None:
    """Writes vectors of people, with ids and attributes, to a file.

    An interrupted run resumes from the store when the command is repeated.
    """
    from pairmatch.rules import parse_rule

    parse_rule(where or ())  # reports errors before anything is loaded
    check_plan(plan_only, gpus, usd_per_hour, accelerator)
    check_output(output, plan_only)
    check_place(output, "--output", store=store)
    if matcher is not None and (backbone or pooler or metadata):
        raise ConfigurationError(
            "--matcher has its own parts: leave out --backbone, --pooler and --metadata."
        )
    if matcher is None and kind == "embedding":
        raise ConfigurationError("--kind embedding needs --matcher.")

    from pairmatch.gallery import eligible
    from pairmatch.matcher.embedding import embed_to_file
    from pairmatch.matcher.matcher import Matcher

    machine: dict[str, Any] = {
        "store": store,
        "device": device,
        "engine": create_engine(engine),
        "allow_upload": yes,
    }
    if matcher is not None:
        loaded = load_matcher(matcher, settings, quiet=quiet, **machine)
    else:
        parts = parts_of(backbones=backbone, poolers=pooler, metadata=metadata, settings=settings)
        loaded = Matcher(**parts, **machine, max_usd=max_usd, progress=show_progress(quiet))
    profiles = inputs.profiles(people)
    if plan_only or output is None:
        shown, _ = eligible(profiles, where or None, asking={})
        planned = loaded.plan(shown, gpus=gpus, usd_per_hour=usd_per_hour, accelerator=accelerator)
        echo(str(planned), lines=True)
        return
    chosen = kind or ("feature" if matcher is None else "embedding")
    count = embed_to_file(loaded, profiles, output, kind=chosen, side=side, where=where or None)
    echo(f"Wrote {chosen}s of {count} people to {output}, readable only by you.")


@app.command(
    epilog="Example: pairmatch export gallery --to postgresql://app@db.local/app#people "
    "--delete-missing --index"
)
def export(
    gallery: Annotated[
        Path,
        typer.Argument(
            metavar="GALLERY",
            help="Folder of a gallery, or a file that embed wrote.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="ADDRESS",
            help="postgresql://user@host/database#table, http://host:6333#collection for Qdrant, "
            "qdrant:FOLDER#collection for its local mode, or lance:FOLDER.",
        ),
    ],
    delete_missing: Annotated[
        bool,
        typer.Option("--delete-missing", help="Delete people who are not in the gallery."),
    ] = False,
    index: Annotated[
        bool, typer.Option("--index", help="Build an approximate index (HNSW) afterwards.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Exports people to PostgreSQL (pgvector), Qdrant or LanceDB.

    People with the same id are replaced. Passwords and keys come from PGPASSWORD, ~/.pgpass
    or QDRANT_API_KEY. The place is recorded in a gallery, so that forget finds it.
    """
    from pairmatch.gallery import Gallery
    from pairmatch.gallery.export import export as export_gallery
    from pairmatch.gallery.export import open_target, record_export
    from pairmatch.gallery.vectors import read_vectors

    is_file = gallery.is_file()
    opened = read_vectors(gallery) if is_file else Gallery.open(gallery)
    with open_target(to) as target:
        if not is_file:
            record_export(gallery, target.address)  # before the first person is there
        exported = export_gallery(
            opened,
            target,
            delete_missing=delete_missing,
            index=index,
            progress=show_progress(quiet),
        )
        echo(
            f"Exported {exported.people} people to {target.address}: {exported.written} written, "
            f"{exported.deleted} deleted."
        )
        if is_file:
            echo(f"Erase people there with: pairmatch forget ID --export '{target.address}'")

"""Vectors for other systems: `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import Quiet, show_progress
from pairmatch.cli.output import echo


@app.command(
    epilog="Example: pairmatch export gallery --to postgresql://app@db.local/app#people "
    "--delete-missing --index"
)
def export(
    gallery: Annotated[
        Path, typer.Argument(metavar="GALLERY", help="Folder of a gallery.", show_default=False)
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
    """Exports a gallery to PostgreSQL (pgvector), Qdrant or LanceDB.

    People with the same id are replaced. Passwords and keys come from PGPASSWORD, ~/.pgpass
    or QDRANT_API_KEY. The place is recorded in the gallery, so that forget finds it.
    """
    from pairmatch.gallery import Gallery
    from pairmatch.gallery.export import export as export_gallery
    from pairmatch.gallery.export import open_target, record_export

    opened = Gallery.open(gallery)
    with open_target(to) as target:
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

"""Stored candidates: `gallery build`, `gallery add`, `gallery remove`, `gallery info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from pairmatch.cli.application import app
from pairmatch.cli.help import Application
from pairmatch.cli.options import (
    Device,
    MatcherFolder,
    Options,
    Quiet,
    Yes,
    load_matcher,
)
from pairmatch.cli.output import echo, echo_json
from pairmatch.cli.paths import StorePath, folder_to_write
from pairmatch.cli.reading import read_ids
from pairmatch.cli.tables import Tables, reads_tables
from pairmatch.core.errors import ConfigurationError

gallery_app = Application(
    help="Manage galleries: candidates that are embedded once and stored.",
    epilog="Example: pairmatch gallery build couples candidates.csv --output gallery",
)
app.add_typer(gallery_app, name="gallery")

People = Annotated[
    Path,
    typer.Argument(
        metavar="PEOPLE", help="Profiles file, or folder of photos.", show_default=False
    ),
]
GalleryFolder = Annotated[
    Path, typer.Argument(metavar="GALLERY", help="Folder of a gallery.", show_default=False)
]


@gallery_app.command(
    epilog="Example: pairmatch gallery build couples candidates.csv --output gallery"
)
@reads_tables
def build(
    matcher: MatcherFolder,
    people: People,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the gallery; an existing gallery is replaced.",
            callback=folder_to_write("gallery"),
        ),
    ],
    inputs: Tables,
    side: Annotated[str, typer.Option(help="Side that these people are on: a or b.")] = "b",
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Embeds people and stores them as a gallery of candidates."""
    if side not in ("a", "b"):
        raise ConfigurationError(f"--side must be a or b, got {side!r}.")
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )

    profiles = inputs.profiles(people)
    gallery = loaded.gallery(profiles, side=cast(Literal["a", "b"], side))
    gallery.save(output)
    echo(f"Saved {len(gallery)} people in {output}.")


@gallery_app.command(epilog="Example: pairmatch gallery add couples gallery newcomers.csv")
@reads_tables
def add(
    matcher: MatcherFolder,
    gallery: GalleryFolder,
    people: People,
    inputs: Tables,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Adds people to a gallery; people with the same id are replaced."""
    from pairmatch.gallery import Gallery

    opened = Gallery.open(gallery)
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )
    kinds = opened.attribute_kinds
    # Newcomers have the types of the gallery
    texts = [name for name, kind in kinds.items() if kind == "text"]
    profiles = inputs.profiles(people, text_attributes=texts)
    before = len(opened)
    loaded.add_to(opened, profiles)
    added = len(opened) - before
    echo(f"Added {added} people and replaced {len(profiles) - added}.")


@gallery_app.command(epilog="Example: pairmatch gallery remove gallery anna-17 ben-4")
def remove(
    gallery: GalleryFolder,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="IDS", help="Ids of the people to remove.", callback=read_ids),
    ],
) -> None:
    """Removes people from a gallery; `forget --gallery` also erases them from its files."""
    from pairmatch.gallery import Gallery

    opened = Gallery.open(gallery)
    count = opened.remove(ids)
    echo(f"Removed {count} of {len(set(ids))} people; {len(opened)} are left.")


@gallery_app.command(epilog="Example: pairmatch gallery info gallery")
def info(
    gallery: GalleryFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows the size and the attributes of a gallery."""
    from pairmatch.gallery import Gallery

    opened = Gallery.open(gallery)
    size = sum(file.stat().st_size for file in gallery.iterdir())
    about = {
        "people": len(opened),
        "width": opened.width,
        "side": opened.side,
        "attributes": opened.attribute_kinds,
        "bytes": size,
    }
    if as_json:
        echo_json(about)
        return
    echo(
        f"{len(opened)} people of side {opened.side}, embeddings of width {opened.width}, "
        f"{size / 1e6:.1f} MB"
    )
    for name, kind in opened.attribute_kinds.items():
        echo(f"  {name}: {kind}")

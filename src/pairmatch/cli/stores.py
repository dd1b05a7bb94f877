"""The store: `store info`, `store verify`, `store merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pairmatch.cli.application import app
from pairmatch.cli.help import Application
from pairmatch.cli.options import Quiet, show_progress
from pairmatch.cli.output import echo
from pairmatch.core.errors import StoreError

store_app = Application(
    help="Shows, checks and merges stores of features and metadata.",
    epilog="Example: pairmatch store merge node-1.sqlite node-2.sqlite --into all.sqlite",
)
app.add_typer(store_app, name="store")

_StorePath = Annotated[
    Path | None,
    typer.Argument(
        metavar="STORE",
        help="Store, or the folder that holds it.",
        show_default="~/.cache/pairmatch/store.sqlite",
    ),
]


@store_app.command(epilog="Example: pairmatch store info features.sqlite")
def info(store: _StorePath = None) -> None:
    """Shows what a store holds, and what its metadata cost."""
    from pairmatch.io.store import Store
    from pairmatch.io.store_checks import store_content

    with Store(store, create=False) as opened:
        echo(str(store_content(opened)), lines=True)


@store_app.command(epilog="Example: pairmatch store verify features.sqlite --repair")
def verify(
    store: _StorePath = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Remove damaged rows, so that they are extracted or generated again."
        ),
    ] = False,
) -> None:
    """Checks every row of a store: keys, sizes, number formats, values and people.

    Ends with exit code 2 if there are problems, which are listed with their fix.
    """
    from pairmatch.io.store import Store
    from pairmatch.io.store_checks import verify_store

    with Store(store, create=False) as opened:
        problems = verify_store(opened, repair=repair)
        counts = opened.counts() if repair or not problems else {}
        left = verify_store(opened) if problems and repair else problems
    if left:
        lines = "\n".join(f"  {problem}" for problem in left)
        raise StoreError(f"The store {opened.path} has problems:\n{lines}")
    for problem in problems:
        echo(f"Removed {problem.count:,} {problem.what}.")
    echo(
        f"{opened.path} is sound: {counts['features']:,} features and {counts['metadata']:,} "
        f"metadata outcomes of {counts['people']:,} people."
    )


@store_app.command(
    epilog="Example: pairmatch store merge node-1.sqlite node-2.sqlite --into all.sqlite"
)
def merge(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORES", help="Stores to merge.", show_default=False),
    ],
    into: Annotated[
        Path, typer.Option("--into", metavar="STORE", help="Target; created if missing.")
    ],
    quiet: Quiet = False,
) -> None:
    """Adds everything in some stores to another one; running it again changes nothing.

    Content that the target has stays; different content under one key is reported.
    """
    from pairmatch.io.store_merging import merge_stores

    echo(str(merge_stores(stores, into, progress=show_progress(quiet))), lines=True)

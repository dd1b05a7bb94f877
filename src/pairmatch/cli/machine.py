"""What is installed and what will work here: `plugins`, `doctor`."""

from __future__ import annotations

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import StorePath


@app.command(epilog="Example: pairmatch plugins")
def plugins() -> None:
    """Lists what is installed for each interface, and from which distribution."""
    from pairmatch.core import registry

    found = registry.plugins()
    rows = [("kind", "name", "distribution", "from")]
    rows += [(p.kind, p.name, f"{p.distribution} {p.version}", p.target) for p in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        typer.echo(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]
            )
        )


@app.command(epilog="Example: pairmatch doctor")
def doctor(store: StorePath = None) -> None:
    """Says what will work on this machine, and how to mend what will not."""
    from pairmatch.cli.doctor import examine, screen

    colours = {"✓": "green", "·": "yellow", "✗": "red"}
    for line in screen(examine(store)).splitlines():
        typer.secho(line, fg=colours.get(line[0]))

"""What is installed and what works on this machine: `plugins`, `doctor`."""

from __future__ import annotations

from pairmatch.cli.application import app
from pairmatch.cli.output import echo
from pairmatch.cli.paths import ExistingStorePath


@app.command(epilog="Example: pairmatch plugins")
def plugins() -> None:
    """Lists the installed parts and the distributions that provide them."""
    from pairmatch.core import registry

    rows = [("kind", "name", "distribution", "from")]
    rows += [
        (part.kind, part.name, f"{part.distribution} {part.version}", part.target)
        for part in registry.plugins()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        echo("  ".join([*cells, row[3]]))


@app.command(epilog="Example: pairmatch doctor")
def doctor(store: ExistingStorePath = None) -> None:
    """Checks what works on this machine, and says how to fix what does not."""
    from pairmatch.cli.doctor import examine, format_checks

    colors = {"✓": "green", "·": "yellow", "✗": "red"}
    for line in format_checks(examine(store)).splitlines():
        echo(line, color=colors.get(line[0]))

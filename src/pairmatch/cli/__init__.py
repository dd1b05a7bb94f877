"""The command line.

Heavy libraries are imported inside the commands, so that `--help` is fast.
"""

from pairmatch.cli import (
    configuring,
    demos,
    finetuning,
    fitting,
    galleries,
    machine,
    monitoring,
    people,
    ranking,
    serve,
    stores,
    sweeping,
    vectors,
)
from pairmatch.cli.application import app, run_app
from pairmatch.cli.options import parse_options

__all__ = [
    "app",
    "configuring",
    "demos",
    "finetuning",
    "fitting",
    "galleries",
    "machine",
    "main",
    "monitoring",
    "parse_options",
    "people",
    "ranking",
    "serve",
    "stores",
    "sweeping",
    "vectors",
]


def main() -> None:
    """Entry point of the command `pairmatch`."""
    run_app()

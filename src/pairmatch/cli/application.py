"""The Typer application that all commands are registered with."""

from __future__ import annotations

import logging
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from pairmatch.core.errors import PairmatchError


class _Commands(TyperGroup):
    """Reports errors of the library as a message with exit code 2.

    Other exceptions are bugs: they keep their traceback and exit with code 1.
    """

    def invoke(self, ctx: Any) -> Any:
        logging.basicConfig(
            format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr
        )
        try:
            return super().invoke(ctx)
        except PairmatchError as error:
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Learn who goes with whom from matched pairs of people, then rank candidates for anyone.",
    epilog="Example: pairmatch demo --output demo",
)

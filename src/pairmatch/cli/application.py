"""The Typer application that all commands are registered with, and how commands end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pairmatch.cli.help import Application, CommandGroup
from pairmatch.cli.output import SafeStream, echo, open_standard_streams, safe_output
from pairmatch.core._version import __version__
from pairmatch.core.errors import ConfigurationError, PairmatchError
from pairmatch.core.text import printable

_INTERRUPTED = 130
_KEPT = (
    "Interrupted. Everything that is already in the store, in the folder of a sweep or in slates "
    "is kept: run the same command again to resume."
)
_FIXES = {
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some space, or name a place on another disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or name another place",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or close other programs",
    errno.ENFILE: "raise the limit on open files (ulimit -n), or close other programs",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
}


class _Commands(CommandGroup):
    """Reports errors of the library and of the system as a message with exit code 2.

    Other exceptions are bugs: they keep their traceback and exit with code 1.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        with safe_output() as out:
            try:
                result = super().main(*args, **options)
            except SystemExit as end:
                if not end.code:
                    _report_lost_output(out)
                raise
            _report_lost_output(out)
            return result

    def make_context(self, *args: Any, **options: Any) -> Any:
        try:
            return super().make_context(*args, **options)
        except Exception as error:
            _escape_message(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            _check_current_folder()
            return super().invoke(ctx)
        except PairmatchError as error:
            _fail(str(error), error)
        except KeyboardInterrupt as error:
            echo(_KEPT, err=True)
            raise typer.Exit(_INTERRUPTED) from error
        except MemoryError as error:
            detail = f" ({error})" if str(error) else ""
            _fail(f"There is not enough memory{detail}: use fewer people, or free some.", error)
        except OSError as error:
            if error.errno is None:
                raise
            _fail(_describe(error), error)
        except Exception as error:
            _escape_message(error)
            raise


def run_app() -> None:
    """Runs the command of this process, and ends the process."""
    open_standard_streams()
    try:
        app()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            # The interpreter would wait for threads that wait for a server
            os._exit(_INTERRUPTED)
        raise


def _fail(message: str, error: BaseException) -> NoReturn:
    echo(f"Error: {message}", lines=True, err=True, color="red")
    raise typer.Exit(2) from error


def _check_current_folder() -> None:
    """Raises ConfigurationError in a folder that was deleted: torch ends the process there."""
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigurationError(
            f"The current folder cannot be used ({error.strerror}): change to another one with cd."
        ) from error


def _describe(error: OSError) -> str:
    """What failed, where, and how to fix it."""
    reason = error.strerror or str(error)
    paths = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    place = f"{printable(os.fsdecode(paths[-1]))}: " if paths else ""
    fix = _FIXES.get(error.errno or 0)
    return f"{place}{reason}{f': {fix}' if fix else ''}."


def _escape_message(error: Exception) -> None:
    """Escapes what a usage error quotes from the command line."""
    message = getattr(error, "message", None)
    if hasattr(error, "format_message") and isinstance(message, str):
        error.message = printable(message, lines=True)  # type: ignore[attr-defined]


def _report_lost_output(out: SafeStream) -> None:
    """Ends with code 2 if a reader misses output; what was saved stays saved."""
    out.flush()
    if out.lost_output is not None:
        echo(
            f"Error: The output could not be printed: {out.lost_output}. Files that the command "
            "writes are complete.",
            err=True,
            color="red",
        )
        raise SystemExit(2)


app = Application(
    cls=_Commands,
    pretty_exceptions_enable=False,
    help="Learn who goes with whom from matched pairs of people, then rank candidates for anyone.",
    epilog="Example: pairmatch demo --output demo",
)


def _print_version(asked: bool) -> None:
    if asked:
        echo(f"pairmatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    pass

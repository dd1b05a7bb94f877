"""Output of commands: no character, closed pipe or full disk interrupts the work of a command."""

from __future__ import annotations

import codecs
import errno
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

import typer

from pairmatch.core.display import fitted_lines, line_width
from pairmatch.core.text import printable, printable_message

#: What is written where an encoding lacks a character that pairmatch prints.
_ASCII = {
    "→": "->",
    "…": "...",
    "–": "-",
    "−": "-",
    "·": "-",
    "✓": "+",
    "✗": "x",
    "×": "x",
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "━": "-",
    "╸": "-",
    "╺": "-",
}
_FALLBACK = "pairmatch.ascii"
#: The reader has closed the pipe or the terminal, or there never was one.
_NO_READER = {errno.EPIPE, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET}


def echo(
    text: str = "", *, lines: bool = False, err: bool = False, color: str | None = None
) -> None:
    """Prints a message with escaped control characters, in lines of the width of the terminal.

    Args:
        text: The message.
        lines: Whether the message has several lines. Ids, file names and other texts in it must
            then be escaped already, because a line break in them would look like one of ours.
        err: Whether to print to standard error.
        color: Color on a terminal.
    """
    width = line_width(err=err)
    shown = [
        part
        for line in printable(text, lines=lines).split("\n")
        for part in fitted_lines(line, width)
    ]
    typer.secho("\n".join(shown), err=err, fg=color)


def echo_json(value: Any) -> None:
    """Prints a JSON value on one line, as ASCII if the output cannot show all characters."""
    text = json.dumps(value, ensure_ascii=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeError:
        text = json.dumps(value)
    typer.echo(text if printable(text) == text else json.dumps(value))


class SafeStream:
    """A text stream that writes what can be written; the first failure ends it without an error.

    Characters that the encoding lacks are written in ASCII: `→` as `->`, others as `\\u2192`.

    Args:
        stream: The stream to write to; None if it is closed.

    Attributes:
        failure: Why text was lost; None if none was.
    """

    buffer = None  # bytes would get around `write`

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = io.StringIO() if stream is None else stream
        self.failure: OSError | None = OSError(errno.EBADF, "closed") if stream is None else None

    def write(self, text: str) -> int:
        """Writes text; returns its length."""
        if self.failure is None:
            try:
                self._stream.write(self._encodable(text))
            except OSError as error:
                self.failure = error
            except ValueError as error:  # the stream was closed
                self.failure = OSError(errno.EBADF, str(error))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self.failure = error
            except ValueError as error:
                self.failure = OSError(errno.EBADF, str(error))

    def discard(self) -> None:
        """Sends the rest of a stream that failed nowhere, so that the interpreter can exit."""
        if self.failure is not None:
            try:
                number = self._stream.fileno()
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
            except (OSError, ValueError):
                return

    @property
    def lost_output(self) -> str | None:
        """Why a reader misses output; None if all was written or there is no reader."""
        if self.failure is None or self.failure.errno in _NO_READER:
            return None
        return self.failure.strerror or str(self.failure)

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None)
        if not encoding:
            return text
        try:
            text.encode(encoding, "strict")
        except UnicodeError:
            return text.encode(encoding, _FALLBACK).decode(encoding)
        return text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_output() -> Iterator[SafeStream]:
    """Makes standard output and standard error safe streams for the block.

    Warnings and log messages are written as lines, `WARNING: …`.

    Yields:
        Standard output.
    """
    before = (sys.stdout, sys.stderr)
    out, err = map(SafeStream, before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_unwritten)
    handler.setFormatter(_PrintableFormatter("%(levelname)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    form = warnings.formatwarning
    warnings.formatwarning = _format_warning
    try:
        yield out
    finally:
        warnings.formatwarning = form
        logging.getLogger().removeHandler(handler)
        for stream in (out, err):
            stream.flush()
            stream.discard()
        sys.stdout, sys.stderr = before


def open_standard_streams() -> None:
    """Opens closed standard streams nowhere: the next file would get their number otherwise."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _is_unwritten(record: logging.LogRecord) -> bool:
    """Whether no handler of the library itself, such as that of huggingface_hub, has written it."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if any(isinstance(handler, logging.StreamHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


class _PrintableFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable_message(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)  # an exception has several lines


def _format_warning(message: Warning | str, *_: Any, **__: Any) -> str:
    indented = str(message).replace("\n", "\n  ")
    return f"WARNING: {printable(indented, lines=True)}\n"


def _fallback(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    written = [
        _ASCII.get(character) or character.encode("ascii", "backslashreplace").decode()
        for character in characters
    ]
    return "".join(written), error.end


codecs.register_error(_FALLBACK, _fallback)

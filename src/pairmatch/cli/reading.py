"""Ids and texts in the arguments of commands."""

from __future__ import annotations

import logging
import unicodedata

import typer

from pairmatch.core.text import has_surrogates, printable, replace_surrogates

_log = logging.getLogger(__name__)


def read_id(text: str) -> str:
    """An id of the command line, in the form in which files are read.

    Raises:
        BadParameter: The id is not valid UTF-8, so that no person can have it.
    """
    if has_surrogates(text):
        raise typer.BadParameter(f"'{printable(text)}' is not UTF-8, so that it cannot be an id.")
    return unicodedata.normalize("NFC", text)


def read_ids(texts: list[str]) -> list[str]:
    """Ids of the command line, as `read_id` reads them."""
    return [read_id(text) for text in texts]


def read_text(parameter: typer.CallbackParam, text: str) -> str:
    """Text of the command line; bytes that are not UTF-8 are replaced, and counted."""
    if has_surrogates(text):
        replaced = replace_surrogates(text)
        _log.warning(
            "--%s: %d characters that are not valid UTF-8 were replaced by U+FFFD.",
            parameter.name,
            sum(old != new for old, new in zip(text, replaced, strict=True)),
        )
        text = replaced
    return unicodedata.normalize("NFC", text)


def read_texts(parameter: typer.CallbackParam, texts: list[str] | None) -> list[str] | None:
    """Texts of the command line, as `read_text` reads them."""
    return None if texts is None else [read_text(parameter, text) for text in texts]

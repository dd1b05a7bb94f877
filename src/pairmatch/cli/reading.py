"""What commands read about people: pairs files, profiles, photo folders, and arguments."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from pairmatch.cli.options import show_progress
from pairmatch.core.text import has_surrogates, printable, replace_surrogates

if TYPE_CHECKING:
    from pairmatch.core.types import Profile
    from pairmatch.data import Pairs

_log = logging.getLogger(__name__)

KeepWords = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-word",
        metavar="WORD",
        help="Word that is a value although it usually stands for a missing one, such as NA; "
        "repeatable.",
    ),
]
FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Allow links that lead out of the folder of the photos."),
]
PoolRule = Annotated[
    str | None,
    typer.Option(
        "--pools",
        metavar="RULE",
        help="Rule that says who could have met, such as 'region = query.region': ranks are "
        "computed inside these pools. A column pool of PAIRS needs no rule.",
    ),
]


def read_pairs(
    path: Path,
    *,
    images: Path | None,
    profiles: Path | None,
    sides: int,
    keep_words: Sequence[str] | None,
    follow_links: bool,
    quiet: bool,
    pools: str | None = None,
) -> Pairs:
    """Reads the pairs file of a command; `pools` is a rule that says who could have met."""
    from pairmatch.data import Pairs

    pairs = Pairs.read(
        path,
        images=images,
        profiles=profiles,
        sides=cast(Literal[1, 2], sides),
        follow_links=follow_links,
        keep_words=keep_words or (),
        progress=show_progress(quiet),
    )
    return pairs if pools is None else pairs.pooled(pools)


def read_people(
    path: Path,
    *,
    images: Path | None,
    keep_words: Sequence[str] | None,
    follow_links: bool,
    quiet: bool,
    text_columns: Sequence[str] = (),
) -> list[Profile]:
    """Reads the profiles file or the photo folder of a command.

    Args:
        path: Path to the file or the folder.
        images: Folder that photo paths are relative to.
        keep_words: Words that are values although they usually stand for a missing one.
        follow_links: Whether links may lead out of the folder of the photos.
        quiet: Whether to hide the progress bar.
        text_columns: Attributes that are text, whatever their cells look like.
    """
    from pairmatch.data import read_profiles

    return read_profiles(
        path,
        images=images,
        follow_links=follow_links,
        keep_words=keep_words or (),
        text_columns=text_columns,
        progress=show_progress(quiet),
    )


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

"""What commands read about people: pairs files, profiles, photo folders, and arguments."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from pairmatch.cli.options import show_progress
from pairmatch.cli.output import echo
from pairmatch.core.text import has_surrogates, printable, replace_surrogates

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.data.options import TableOptions
    from pairmatch.data.skipping import OnBadRow

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


Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="SOURCE=NAME",
        help="Column to read under another name, such as user_id=id; repeatable.",
    ),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        metavar="NAME",
        help="Attribute that is text even if its cells look like numbers; repeatable.",
    ),
]
OnBadRowOption = Annotated[
    Literal["stop", "skip"],
    typer.Option(
        "--on-bad-row",
        help="skip: go on without rows and people that cannot be read, and without their pairs.",
    ),
]
MostSkipped = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Share of people or pairs above which --on-bad-row skip stops too."
    ),
]


def table_options(
    *,
    images: Path | None,
    follow_links: bool,
    keep_words: Sequence[str] | None,
    columns: Sequence[str] | None,
    text_columns: Sequence[str] | None,
    on_bad_row: OnBadRow,
    most_skipped: float,
    quiet: bool,
) -> TableOptions:
    """Keyword arguments of readers of tables for the options of a command.

    Raises:
        BadParameter: A column is not SOURCE=NAME, or is given twice.
    """
    renamed: dict[str, str] = {}
    for text in columns or ():
        source, equals, name = text.rpartition("=")
        if not (equals and source.strip() and name.strip()):
            raise typer.BadParameter(
                f"--column needs SOURCE=NAME, such as user_id=id; got {text!r}."
            )
        if renamed.setdefault(source, name) != name:
            raise typer.BadParameter(
                f"--column reads {source!r} both as {renamed[source]!r} and as {name!r}."
            )
    return {
        "images": images,
        "follow_links": follow_links,
        "keep_words": keep_words or (),
        "columns": renamed,
        "text_columns": text_columns or (),
        "on_bad_row": on_bad_row,
        "most_skipped": most_skipped,
        "progress": show_progress(quiet),
    }


def read_pairs(
    path: Path,
    *,
    profiles: Path | None,
    sides: int,
    options: TableOptions,
    pools: str | None = None,
) -> Pairs:
    """Reads the pairs file of a command; `pools` is a rule that says who could have met."""
    from pairmatch.data import Pairs

    pairs = Pairs.read(path, profiles=profiles, sides=cast(Literal[1, 2], sides), **options)
    return pairs if pools is None else pairs.pooled(pools)


def list_skipped(folder: Path, tables: Sequence[Pairs]) -> None:
    """Writes what was left out into the folder of a command, and says where.

    Args:
        folder: The folder; a list of an earlier run is removed.
        tables: What the command read.
    """
    from pairmatch.data.skipping import FILE, write_skipped

    entries = list(dict.fromkeys(entry for pairs in tables for entry in pairs.skipped))
    path = folder / FILE
    if not entries:
        path.unlink(missing_ok=True)
        return
    write_skipped(path, entries)
    echo(f"{len(entries):,} problems of rows that were left out are listed in {path}.")


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

"""How tables of people and pairs are read: the options that all readers share."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.text import printable
from pairmatch.data.photos import PhotoOptions, image_folder
from pairmatch.data.skipping import BadRows, OnBadRow
from pairmatch.io.parts import fixed_folder, table_url
from pairmatch.io.remote import SCHEMES, is_web_address, web_address
from pairmatch.io.tables import Frame, TableSource, words_for_missing


class TableOptions(TypedDict, total=False):
    """Keyword arguments of all readers of tables, each with a default.

    Attributes:
        images: Folder that photo paths are relative to and must not leave, or its URL in cloud
            storage (`s3://bucket/photos`). Default: the folder of the file that names the photos,
            or the current folder for tables in memory.
        check_images: Whether to decode every photo, to make sure that it can be read. Default:
            True.
        follow_links: Whether links may lead out of the folder of the photos. Default: False.
        keep_words: Words that are values although they usually stand for a missing one, such as
            `NA` for Namibia.
        columns: Names of columns by their names in the table: `{"user_id": "id"}`.
        text_columns: Attributes that are text, whatever their cells look like, such as postal codes
            without a leading zero.
        on_bad_row: `stop` (the default) raises an error with all problems; `skip` goes on without
            the rows and people that cannot be read, and without their pairs, and lists them in
            `skipped` of the result.
        most_skipped: Share of the people, and of the pairs, above which `skip` stops too. Default:
            0.05.
        progress: Whether to show a progress bar. Default: False.
    """

    images: str | Path | None
    check_images: bool
    follow_links: bool
    keep_words: Collection[str]
    columns: Mapping[str, str] | None
    text_columns: Collection[str]
    on_bad_row: OnBadRow
    most_skipped: float
    progress: bool


#: Options without an effect where no table is read, with their names on the command line.
_OF_TABLES = {
    "images": "--images",
    "keep_words": "--keep-word",
    "columns": "--column",
    "text_columns": "--text-column",
    "on_bad_row": "--on-bad-row",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """How tables are read, checked.

    Attributes:
        photos: How photos are found and checked.
        missing_words: Words that stand for a missing value.
        renamed: Names of columns by their names in the file.
        text_columns: Columns and attributes that are text, whatever their cells look like.
        bad_rows: What happens at rows that cannot be used.
    """

    photos: PhotoOptions
    missing_words: Collection[str]
    renamed: Mapping[str, str]
    text_columns: Collection[str]
    bad_rows: BadRows

    @classmethod
    def of(cls, call: str, source: TableSource, options: TableOptions) -> Reading:
        """Checks the options of a call.

        Args:
            call: The call, for messages.
            source: The table that names the photos, or the folder of photos.
            options: Keyword arguments.

        Raises:
            ConfigurationError: An option is unknown, or has no valid value.
        """
        known = TableOptions.__annotations__
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigurationError(
                " ".join(unknown_name(f"argument of {call}", name, known) for name in unknown)
            )
        images = options.get("images")
        folder: Path | str = Path()
        if images is not None:
            folder = image_folder(images)
        elif not isinstance(source, Frame):
            where = fixed_folder(source if isinstance(source, Path) else source[0])
            folder = table_url(where) or where
        return cls(
            PhotoOptions(
                folder,
                options.get("follow_links", False),
                options.get("check_images", True),
                options.get("progress", False),
            ),
            words_for_missing(options.get("keep_words", ())),
            _renamed(options.get("columns") or {}),
            _names(options.get("text_columns") or ()),
            BadRows(options.get("on_bad_row", "stop"), options.get("most_skipped", 0.05)),
        )


def reject_table_options(
    options: TableOptions, place: str, *, except_for: Collection[str] = ()
) -> None:
    """Rejects options that would have no effect, because no table is read.

    Args:
        options: Keyword arguments of a reader.
        place: What is read instead, as a sentence without its end.
        except_for: Options that have an effect nevertheless.

    Raises:
        ConfigurationError: Names the options.
    """
    given = [
        f"`{name}` ({option})"
        for name, option in _OF_TABLES.items()
        if name not in except_for and options.get(name) not in (None, (), [], {}, "", "stop")
    ]
    if given:
        raise ConfigurationError(
            f"{printable(place)}, so that options about tables have no effect: leave out "
            f"{', '.join(given)}."
        )


def source_of(table: object, name: str) -> TableSource:
    """A path, several paths, or a table in memory with a name for messages.

    Raises:
        ConfigurationError: A list of paths is empty, or a path is a web address.
    """
    if isinstance(table, str | Path):
        return _local_or_stored(table)
    if isinstance(table, list | tuple) and all(isinstance(path, str | Path) for path in table):
        if not table:
            raise ConfigurationError(f"`{name}` must name at least one file, got an empty list.")
        return tuple(map(_local_or_stored, table))
    return Frame(name, table)


def _local_or_stored(path: str | Path) -> Path:
    """The path to a table, or that of its URL in cloud storage."""
    if is_web_address(path) and not Path(path).exists():
        raise ConfigurationError(
            f"{web_address(path)} is a web address: download the table, or name a file or folder "
            f"in cloud storage ({', '.join(SCHEMES)})."
        )
    return Path(path)


def _names(names: Collection[str]) -> Collection[str]:
    """Names of columns in the form in which files are read; one may be given by itself."""
    listed = [names] if isinstance(names, str) else names
    return [unicodedata.normalize("NFC", name.strip()) for name in listed]


def _renamed(columns: Mapping[str, str]) -> dict[str, str]:
    """Names of columns by their names in the file, in the form in which files are read.

    Raises:
        ConfigurationError: A name is blank or no text, or two columns get one name.
    """
    renamed: dict[str, str] = {}
    if not isinstance(columns, Mapping):
        raise ConfigurationError(
            "`columns` (--column) maps the names of columns to other names, such as "
            f"{{'user_id': 'id'}}, got {columns!r}."
        )
    for names in columns.items():
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise ConfigurationError(
                "`columns` (--column) maps the names of columns to other names, got "
                f"{names[0]!r}: {names[1]!r}."
            )
        source, target = (unicodedata.normalize("NFC", name.strip()) for name in names)
        other = next((name for name, taken in renamed.items() if taken == target), None)
        if other is not None:
            raise ConfigurationError(
                f"`columns` (--column) maps both {other!r} and {source!r} to {target!r}."
            )
        renamed[source] = target
    return renamed

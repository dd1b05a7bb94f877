"""Reading of pairs and profiles from files; all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pairmatch.core.errors import DataError
from pairmatch.core.types import Pair, Profile
from pairmatch.data.pair_rows import PairRows
from pairmatch.data.photo_folder import read_photo_folder
from pairmatch.data.photos import PhotoOptions
from pairmatch.data.profile_rows import ProfileRows, SidedProfileRows
from pairmatch.io.tables import Table, read_table, words_for_missing

# A misspelled `image`, which must not silently become an attribute
_LIKE_IMAGE = re.compile(
    r"(image|img|photo|picture|pic)s?_?(file|path|url)?s?_?[ab]?", re.IGNORECASE
)


def read_pairs(
    path: Path,
    *,
    photos: PhotoOptions,
    profiles: Path | None,
    sides: Literal[1, 2],
    keep_words: Collection[str],
) -> tuple[dict[str, Profile], list[Pair]]:
    """Reads profiles by id, and pairs. [`Pairs.read`][pairmatch.data.pairs.Pairs.read] explains.

    Raises:
        DataError: The files have problems; the error lists all of them.
    """
    missing_words = words_for_missing(keep_words)
    table = read_table(
        path,
        ids=("id_a", "id_b"),
        names=("group", "pool"),
        paths=("image_a", "image_b"),
        missing_words=missing_words,
    )
    table.require(["id_a", "id_b"])
    if profiles is None:
        table.require(_missing_image_columns(table, ("_a", "_b")))
    if not {"id_a", "id_b"} <= set(table.columns):
        raise table.error()
    pair_rows = PairRows(table, sides)
    descriptions = SidedProfileRows(table, photos)
    blank = {side: table.rows_without_id(f"id_{side}") for side in "ab"}
    for row in range(len(table.rows)):
        ids = pair_rows.ids(row)
        table.problems += [blank[side][row] for side in "ab" if row in blank[side]]
        if profiles is None:
            descriptions.add(row, ids)
        pair_rows.add(row, ids)
    if profiles is None:
        people = descriptions.profiles()
    else:
        people = _read_separate_profiles(profiles, photos, missing_words, table, pair_rows)
    pair_rows.settle_repeated()
    pair_rows.check_sides()
    if table.problems:
        raise table.error()
    pair_rows.report_unknown_outcomes()
    return people, pair_rows.pairs


def read_profiles(
    path: str | Path,
    *,
    images: str | Path | None = None,
    check_images: bool = True,
    follow_links: bool = False,
    keep_words: Collection[str] = (),
    text_attributes: Collection[str] = (),
    progress: bool = False,
) -> list[Profile]:
    """Reads profiles from a file, or from a folder with one photo per person.

    Args:
        path: Path to a `.csv`, `.parquet` or `.jsonl` file with the column `id` and optionally
            `image` (several photos separated by `;`), `text` and attributes; or to a folder of
            photos, whose names without extension become ids.
        images: Folder that photo paths are relative to. Default: the folder of the file.
        check_images: Whether to decode every photo, to make sure that it can be read.
        follow_links: Whether links may lead out of the folder of the photos.
        keep_words: Words that are values although they usually stand for a missing one, such as
            `NA` for Namibia.
        text_attributes: Attributes that are text, whatever their cells look like: postal codes that
            happen to have no leading zero.
        progress: Whether to show a progress bar.

    Raises:
        ConfigurationError: `keep_words` has a word that is always a value.
        DataError: The input has problems; the error lists all of them.
    """
    path = Path(path)
    folder = path if path.is_dir() else Path(images) if images else path.parent
    photos = PhotoOptions(folder, follow_links, check_images, progress)
    missing_words = words_for_missing(keep_words)
    if path.is_dir():
        return read_photo_folder(photos)
    people, table = _read_profile_table(path, photos, missing_words, text_attributes)
    if table.problems:
        raise table.error()
    return list(people.values())


def _read_separate_profiles(
    path: Path,
    photos: PhotoOptions,
    missing_words: Collection[str],
    table: Table,
    pair_rows: PairRows,
) -> dict[str, Profile]:
    """Reads the profiles file of a pairs file, and adds its problems to those of the pairs file.

    Raises:
        DataError: The profiles file cannot be read at all; the error lists the problems of both.
    """
    try:
        people, profile_table = _read_profile_table(path, photos, missing_words)
    except DataError as error:
        table.problems.append(str(error))
        raise table.error() from error
    table.problems += profile_table.problems
    if profile_table.is_complete:
        pair_rows.check_people(people, path.name)
    return people


def _read_profile_table(
    path: Path,
    photos: PhotoOptions,
    missing_words: Collection[str],
    text_attributes: Collection[str] = (),
) -> tuple[dict[str, Profile], Table]:
    """Profiles by id, and the table with the problems."""
    table = read_table(path, ids=("id",), paths=("image",), missing_words=missing_words)
    table.require(["id", *_missing_image_columns(table, ("",))])
    if "id" not in table.columns:
        table.is_complete = False
        return {}, table
    people = ProfileRows(
        table, photos, {column: column for column in table.columns}, text_attributes
    )
    blank = table.rows_without_id("id")
    for row, cells in enumerate(table.rows):
        person = cells.get("id")
        if person is None:
            table.problems += [blank[row]] if row in blank else []
            table.is_complete = False
            continue
        first = people.first_row(person)
        if first is not None:
            table.problem(
                row, "id", f"{person!r} is given twice, first in {table.locations[first]}."
            )
        else:
            people.add(row, person, cells)
    return people.profiles(), table


def _missing_image_columns(table: Table, suffixes: Sequence[str]) -> list[str]:
    """The columns of photos that a table lacks and needs: people may have only texts or attributes.

    They are needed if no other column describes people, or if a column seems to be misspelled.

    Args:
        table: Table with people.
        suffixes: Endings of the columns about each side.
    """
    names = [f"image{suffix}" for suffix in suffixes]
    is_misspelled = any(
        _LIKE_IMAGE.fullmatch(column) for column in table.columns if column not in names
    )
    missing = []
    for name, suffix in zip(names, suffixes, strict=True):
        columns = {column for column in table.columns if column.endswith(suffix)} - {f"id{suffix}"}
        if name not in columns and (is_misspelled or not columns):
            missing.append(name)
    return missing

"""Reading of pairs and profiles from files and data frames; all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

from pairmatch.core.errors import DataError, suggestion
from pairmatch.core.text import counted
from pairmatch.core.types import Pair, Profile
from pairmatch.data.options import Reading, TableOptions, reject_table_options, source_of
from pairmatch.data.pair_rows import COLUMNS, PairRows
from pairmatch.data.photo_folder import read_photo_folder
from pairmatch.data.profile_rows import ProfileRows, SidedProfileRows
from pairmatch.data.skipping import Loss, Skipped, write_skipped
from pairmatch.io.parts import holds_tables
from pairmatch.io.tables import Table, TableSource, read_table

# A misspelled `image`, which must not silently become an attribute
_LIKE_IMAGE = re.compile(
    r"(image|img|photo|picture|pic)s?_?(file|path|url)?s?_?[ab]?", re.IGNORECASE
)

_CUTOFF = 0.8  # similarity from which on a column seems to be misspelled


class ProfileList(list[Profile]):
    """Profiles, and what was left out when they were read.

    Attributes:
        skipped: Rows and cells that were left out, with `on_bad_row="skip"`.
    """

    skipped: tuple[Skipped, ...] = ()

    def write_skipped(self, path: str | Path) -> None:
        """Writes `skipped` as a CSV file, as `Pairs.write_skipped` does."""
        write_skipped(Path(path), self.skipped)


def read_pairs(
    source: TableSource,
    *,
    profiles: TableSource | None,
    sides: Literal[1, 2],
    reading: Reading,
) -> tuple[dict[str, Profile], list[Pair], tuple[Skipped, ...]]:
    """Reads profiles by id, pairs, and what was left out.

    [`Pairs.read`][pairmatch.data.pairs.Pairs.read] explains.

    Raises:
        DataError: The files have problems; the error lists all of them.
    """
    table = _read_pair_table(source, reading, has_profiles=profiles is not None)
    pair_rows = PairRows(table, sides)
    if profiles is None:
        tables = [table]
        descriptions = SidedProfileRows(table, reading.photos, reading.text_columns)
        people, unreadable = descriptions.profiles()
    else:
        try:
            people, unreadable, profile_table = _read_profile_table(
                profiles, reading, named=pair_rows.people()
            )
        except DataError as error:
            lines = [*table.messages(), str(error)]
            raise DataError(
                f"{table.location}: {counted(len(lines), 'problem')}:", lines
            ) from error
        tables = [table, profile_table]
        if profile_table.is_complete or reading.bad_rows.are_skipped:
            known = set(filter(None, profile_table.column("id")))
            pair_rows.check_people(known, profile_table.name.rstrip("/"))
    _check_columns(tables, reading)
    named = pair_rows.people()
    if reading.bad_rows.are_skipped:
        pair_rows.leave_out(people, unreadable)
    pair_rows.check_sides(every_row=reading.bad_rows.are_skipped)
    rows_lost = _lost_rows(table)
    skipped = reading.bad_rows.settle(
        tables,
        [
            Loss("people", sum(person not in people for person in named), len(named)),
            Loss("pairs", len(pair_rows.lost) + rows_lost, len(table.locations) + rows_lost),
        ],
    )
    pair_rows.report_unknown_outcomes()
    return people, pair_rows.pairs, skipped


def _read_pair_table(source: TableSource, reading: Reading, *, has_profiles: bool) -> Table:
    """The table of pairs, with its ids.

    Raises:
        DataError: It lacks a column of ids.
    """
    table = read_table(
        source,
        ids=("id_a", "id_b"),
        names=("group", "pool"),
        paths=("image_a", "image_b"),
        missing_words=reading.missing_words,
        renamed=reading.renamed,
        known=(*COLUMNS, "text_a", "text_b"),
    )
    table.require(["id_a", "id_b"])
    if not has_profiles:
        for suffix in ("_a", "_b"):
            _check_fields(table, suffix)
        table.require(_missing_image_columns(table, ("_a", "_b")))
    if {"id_a", "id_b"} <= set(table.columns):
        return table
    # Other problems of columns need the profiles
    to_ids = {name: to for name, to in reading.renamed.items() if to in ("id_a", "id_b")}
    _check_columns([table], replace(reading, renamed=to_ids, text_columns=()))
    raise table.error()


def read_profiles(source: str | Path | object, **options: Unpack[TableOptions]) -> ProfileList:
    """Reads profiles from a file, from a table in memory, or from a folder of photos.

    Args:
        source: Path to a `.csv`, `.parquet` or `.jsonl` file, or a table of pandas, polars, Arrow
            or DuckDB, with the column `id` and optionally `image` (several photos separated by `;`,
            or a list), `text` and attributes; or the path to a folder with one photo per person,
            whose names without extension become ids.
        **options: [`TableOptions`][pairmatch.data.options.TableOptions].

    Returns:
        The profiles; `skipped` lists what was left out.

    Raises:
        ConfigurationError: An option is invalid.
        DataError: The input has problems; the error lists all of them.
    """
    return read_people(source, options)


def is_photo_folder(source: object) -> bool:
    """Whether profiles are a folder of photos, not a table."""
    if not isinstance(source, str | Path):
        return False
    return Path(source).is_dir() and not holds_tables(Path(source))


def read_people(
    source: object, options: TableOptions, *, elsewhere: Collection[str] = ()
) -> ProfileList:
    """Implementation of [`read_profiles`][pairmatch.data.reading.read_profiles].

    Args:
        source: A table, or a folder of photos.
        options: How it is read.
        elsewhere: Columns to rename that may be missing: they are those of other tables.
    """
    where = source_of(source, "profiles")
    reading = Reading.of("read_profiles", where, options)
    if isinstance(where, Path) and is_photo_folder(where):
        reject_table_options(options, f"{where} is a folder of photos")
        return ProfileList(read_photo_folder(reading.photos))
    people, _, table = _read_profile_table(where, reading)
    renamed = {
        name: to
        for name, to in reading.renamed.items()
        if name in table.sources or name not in elsewhere
    }
    _check_columns([table], replace(reading, renamed=renamed))
    total = len(table.rows) + _lost_rows(table)
    profiles = ProfileList(people.values())
    profiles.skipped = reading.bad_rows.settle(
        [table], [Loss("people", total - len(people), total)]
    )
    return profiles


def _read_profile_table(
    source: TableSource,
    reading: Reading,
    *,
    named: Collection[str] | None = None,
) -> tuple[dict[str, Profile], set[str], Table]:
    """Profiles by id, people that cannot be read, and the table with the problems.

    Args:
        source: The table.
        reading: How it is read.
        named: Ids of the people to read; by default all.
    """
    table = read_table(
        source,
        ids=("id",),
        paths=("image",),
        missing_words=reading.missing_words,
        renamed=reading.renamed,
        known=("text",),
    )
    _check_fields(table, "")
    others = [column for column in table.columns if column != "id"]
    table.require(["id", *_missing_image_columns(table, ("",))])
    if "id" not in table.columns:
        table.is_complete = False
        return {}, set(), table
    people = ProfileRows(
        table, reading.photos, {column: column for column in others}, reading.text_columns
    )
    first: dict[str, int] = {}
    for row, person in enumerate(table.column("id")):
        if person is None:
            table.report_missing_id(row, "id")
            table.is_complete = False
        elif first.setdefault(person, row) != row:
            location = table.locations[first[person]]
            table.problem(row, "id", f"{person!r} is given twice, first in {location}.")
        elif named is None or person in named:
            people.add(row, person, table.rows[row])
    return people.profiles(), people.unreadable, table


def _check_fields(table: Table, suffix: str) -> None:
    """Records misspelled columns of photos and texts, which would silently be attributes."""
    missing = [name for name in ("image", "text") if f"{name}{suffix}" not in table.columns]
    for column in table.columns:
        if column.endswith(suffix) and not _LIKE_IMAGE.fullmatch(column):
            name = column.removesuffix(suffix)
            hint = suggestion(name, missing, cutoff=_CUTOFF)
            if hint and name not in ("id", "image", "text"):
                table.problem_of_file(
                    f"the column {column!r} would be an attribute.{hint} Rename it with columns= "
                    "(--column)."
                )


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


def _check_columns(tables: Sequence[Table], reading: Reading) -> None:
    """Records the columns to rename, and those to read as text, that no table has."""
    sources = [source for table in tables for source in table.sources]
    columns = [column for table in tables for column in table.columns]
    attributes = [column[:-2] for column in columns if column.endswith(("_a", "_b"))]
    unknown = [
        (name, f"{target!r} (columns=, --column)", sources)
        for name, target in reading.renamed.items()
        if name not in sources
    ]
    unknown += [
        (name, "text (text_columns=, --text-column)", [*columns, *attributes])
        for name in reading.text_columns
        if name not in columns and name not in attributes
    ]
    files = " and ".join(table.path.name for table in tables[1:])
    nor = f", nor in {files}" if files else ""
    for name, purpose, known in unknown:
        tables[0].problem_of_file(
            f"there is no column {name!r} to read as {purpose}{nor}.{suggestion(name, known)}"
        )


def _lost_rows(table: Table) -> int:
    """Number of rows that the table does not hold."""
    return sum(problem.row is None and not problem.stops for problem in table.problems)

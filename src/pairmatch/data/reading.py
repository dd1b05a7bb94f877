"""Reading of pairs and profiles from files; all problems are reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pairmatch.core.errors import DataError
from pairmatch.core.types import Pair, Profile
from pairmatch.data.pair_rows import PairRows
from pairmatch.data.photos import read_photo_folder
from pairmatch.data.profile_rows import ProfileRows, SidedProfileRows
from pairmatch.io.tables import Table, read_table


def read_pairs(
    path: Path,
    *,
    images: Path | None,
    profiles: Path | None,
    sides: Literal[1, 2],
    check_images: bool,
    progress: bool,
) -> tuple[dict[str, Profile], list[Pair]]:
    """Reads profiles by id, and pairs. [`Pairs.read`][pairmatch.data.pairs.Pairs.read] explains.

    Raises:
        DataError: The files have problems; the error lists all of them.
    """
    table = read_table(path)
    base = images or (profiles or path).parent
    table.require(["id_a", "id_b"] if profiles else ["id_a", "id_b", "image_a", "image_b"])
    if not {"id_a", "id_b"} <= set(table.columns):
        raise table.error()
    pair_rows = PairRows(table, sides)
    descriptions = SidedProfileRows(table, base)
    for row in range(len(table.rows)):
        ids = pair_rows.ids(row)
        for side, person in ids.items():
            if not person:
                table.problem(row, f"id_{side}", "the id is blank.")
        if profiles is None:
            descriptions.add(row, ids)
        pair_rows.add(row, ids)
    if profiles is None:
        people = descriptions.profiles(check_images=check_images, progress=progress)
    else:
        people = _read_separate_profiles(
            profiles, base, table, pair_rows, check_images=check_images, progress=progress
        )
    pair_rows.check_sides()
    if table.problems:
        raise table.error()
    return people, pair_rows.pairs


def read_profiles(
    path: str | Path,
    *,
    images: str | Path | None = None,
    check_images: bool = True,
    progress: bool = False,
) -> list[Profile]:
    """Reads profiles from a file, or from a folder with one photo per person.

    Args:
        path: Path to a `.csv`, `.parquet` or `.jsonl` file with the columns `id`, `image` (several
            photos separated by `;`), `text` and attributes; or to a folder of photos, whose names
            without extension become ids.
        images: Folder that photo paths are relative to. Default: the folder of the file.
        check_images: Whether to decode every photo, to make sure that it can be read.
        progress: Whether to show a progress bar.

    Raises:
        DataError: The input has problems; the error lists all of them.
    """
    path = Path(path)
    if path.is_dir():
        return read_photo_folder(path, check_images=check_images, progress=progress)
    base = Path(images) if images else path.parent
    people, table = _read_profile_table(path, base, check_images=check_images, progress=progress)
    if table.problems:
        raise table.error()
    return list(people.values())


def _read_separate_profiles(
    path: Path,
    images: Path,
    table: Table,
    pair_rows: PairRows,
    *,
    check_images: bool,
    progress: bool,
) -> dict[str, Profile]:
    """Reads the profiles file of a pairs file, and adds its problems to those of the pairs file.

    Raises:
        DataError: The profiles file cannot be read at all; the error lists the problems of both.
    """
    try:
        people, profile_table = _read_profile_table(
            path, images, check_images=check_images, progress=progress
        )
    except DataError as error:
        table.problems.append(str(error))
        raise table.error() from error
    table.problems += profile_table.problems
    if profile_table.is_complete:
        pair_rows.check_people(people, path.name)
    return people


def _read_profile_table(
    path: Path, images: Path, *, check_images: bool, progress: bool
) -> tuple[dict[str, Profile], Table]:
    """Profiles by id, and the table with the problems."""
    table = read_table(path)
    table.require(["id", "image"])
    if "id" not in table.columns:
        table.is_complete = False
        return {}, table
    people = ProfileRows(table, images, {column: column for column in table.columns})
    for row, cells in enumerate(table.rows):
        person = str(cells.get("id", "")).strip()
        first = people.first_row(person)
        if not person:
            table.lost_row(table.locations[row], ", column id: the id is blank.")
        elif first is not None:
            table.problem(
                row, "id", f"{person!r} is given twice, first in {table.locations[first]}."
            )
        else:
            people.add(row, person, cells)
    return people.profiles(check_images=check_images, progress=progress), table

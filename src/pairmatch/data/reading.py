"""Turns files into profiles and pairs; finds every problem before it gives up."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, cast

from rich.progress import track

from pairmatch.core.errors import DataError
from pairmatch.core.types import AttributeValue, Pair, Profile
from pairmatch.io.images import SUFFIXES as IMAGE_SUFFIXES
from pairmatch.io.images import check_image
from pairmatch.io.tables import Table, read_table

_OWN = ("id", "image", "text")
_OUTCOMES = ("match", "rejected")


@dataclass(slots=True)
class _Person:
    """What the rows of a file say about one person, and the rows that said it first."""

    row: int
    suffix: str  # of the columns of that row
    images: tuple[Path, ...] = ()
    cells: dict[str, Any] = field(default_factory=dict)
    said: dict[str, tuple[int, str]] = field(
        default_factory=dict
    )  # row and column by the name of a cell


def read_pairs(
    path: Path,
    *,
    images: Path | None,
    profiles: Path | None,
    sides: Literal[1, 2],
    check_images: bool,
    progress: bool,
) -> tuple[dict[str, Profile], list[Pair]]:
    """Profiles by id and pairs of a file. The consistency of the pairs among themselves is `Pairs`' to check.

    Raises:
        DataError: Every problem of the files at once.
    """
    table = read_table(path)
    base = images or (profiles or path).parent
    people: dict[str, _Person] = {}
    pairs: list[Pair] = []
    _require(table, ["id_a", "id_b"] if profiles else ["id_a", "id_b", "image_a", "image_b"])
    if not _usable(table, ("id_a", "id_b")):
        raise _failed(table)
    columns = [column for column in table.columns if column[-2:] in ("_a", "_b") and column[:-2]]
    types = _attribute_types(table, [c for c in columns if c[:-2] not in _OWN])
    seen: dict[tuple[str, ...], tuple[int, str]] = {}
    for index, row in enumerate(table.rows):
        ids = {side: str(row.get(f"id_{side}", "")).strip() for side in "ab"}
        for side, person in ids.items():
            if not person:
                table.problem(index, f"id_{side}", "the id is blank.")
        if profiles is None:
            for side, person in ids.items():
                named = (
                    person or f"the person of {table.places[index]}, column id_{side}"
                )  # checked all the same
                cells = {
                    column[:-2]: row[column]
                    for column in columns
                    if column[-2:] == f"_{side}" and column in row
                }
                _note(table, index, people, named, cells, base, types, suffix=f"_{side}")
        outcome = str(row.get("outcome", "match")).lower()
        if outcome not in _OUTCOMES:
            close = difflib.get_close_matches(outcome, _OUTCOMES, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            table.problem(index, "outcome", f"{outcome!r} is neither 'match' nor 'rejected'.{hint}")
            continue
        if not all(ids.values()):
            continue
        if ids["a"] == ids["b"]:
            table.problem(index, "id_b", f"{ids['a']!r} is paired with themself.")
            continue
        key = tuple(ids.values()) if sides == 2 else tuple(sorted(ids.values()))
        if key in seen:
            first, earlier = seen[key]
            what = "is given twice" if earlier == outcome else f"is {earlier!r} and {outcome!r}"
            table.problem(
                index,
                "id_a",
                f"the pair {ids['a']!r}, {ids['b']!r} {what}, first in {table.places[first]}.",
            )
            continue
        seen[key] = (index, outcome)
        group = row.get("group")
        pairs.append(
            Pair(
                ids["a"],
                ids["b"],
                cast(Literal["match", "rejected"], outcome),
                None if group is None else str(group),
            )
        )
    if profiles is None:
        found = _finish(table, people, types, check_images, progress)
    else:
        try:
            found, others = _profiles_of(profiles, base, check_images, progress)
        except (
            DataError
        ) as error:  # a file that cannot be read at all does not hide the problems of the other
            table.problems.append(str(error))
            raise _failed(table) from error
        table.problems += others.problems
        for index, row in enumerate(table.rows):
            for side in "ab":
                person = str(row.get(f"id_{side}", "")).strip()
                if person and person not in found and others.is_whole:
                    table.problem(index, f"id_{side}", f"{person!r} is not in {profiles.name}.")
    if sides == 2:
        side_of: dict[str, tuple[str, int]] = {}
        told: set[str] = set()
        for pair, (index, _) in zip(pairs, seen.values(), strict=True):
            for side, person in (("a", pair.a), ("b", pair.b)):
                other, first_row = side_of.setdefault(person, (side, index))
                if other != side and person not in told:
                    told.add(person)
                    table.problem(
                        index,
                        f"id_{side}",
                        f"{person!r} stands on both sides, first as id_{other} in {table.places[first_row]}. Use "
                        "sides=1 (--sides 1) if anyone may match anyone, or give the two people different ids.",
                    )
    if table.problems:
        raise _failed(table)
    return found, pairs


def read_profiles(
    path: str | Path,
    *,
    images: str | Path | None = None,
    check_images: bool = True,
    progress: bool = False,
) -> list[Profile]:
    """Profiles of a profiles file, or of a folder in which every photo is a person.

    Args:
        path: A `.csv`, `.parquet` or `.jsonl` file with the columns `id`, `image` (several photos
            separated by `;`), `text` and attributes; or a folder, whose photos' names without
            suffix become ids.
        images: Folder that photo paths are relative to; by default the file's own.
        check_images: Decodes every photo to make sure that it can be read.
        progress: Shows a progress bar.

    Raises:
        DataError: Every problem at once.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
        )
        if not files:
            raise DataError(
                f"{path}: the folder holds no photos ({', '.join(sorted(IMAGE_SUFFIXES))})."
            )
        stems = [file.relative_to(path).with_suffix("").as_posix() for file in files]
        names = [file.relative_to(path).as_posix() for file in files]
        count = Counter([*stems, *names])
        ids = [stem if count[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
        problems = _broken(files, progress) if check_images else {}
        if problems:
            raise DataError(
                f"{path}: {len(problems)} photos cannot be read:", list(problems.values())
            )
        return [Profile(person, (file,)) for person, file in zip(ids, files, strict=True)]
    found, table = _profiles_of(
        path, Path(images) if images else path.parent, check_images, progress
    )
    if table.problems:
        raise _failed(table)
    return list(found.values())


def _profiles_of(
    path: Path, base: Path, check_images: bool, progress: bool
) -> tuple[dict[str, Profile], Table]:
    table = read_table(path)
    _require(table, ["id", "image"])
    if not _usable(table, ("id",)):
        table.is_whole = False
        return {}, table
    types = _attribute_types(table, [column for column in table.columns if column not in _OWN])
    people: dict[str, _Person] = {}
    for index, row in enumerate(table.rows):
        person = str(row.get("id", "")).strip()
        if not person:
            table.lose(table.places[index], ", column id: the id is blank.")
        elif person in people:
            table.problem(
                index,
                "id",
                f"{person!r} is given twice, first in {table.places[people[person].row]}.",
            )
        else:
            _note(table, index, people, person, row, base, types, suffix="")
    return _finish(table, people, types, check_images, progress), table


def _note(
    table: Table,
    index: int,
    people: dict[str, _Person],
    person: str,
    cells: dict[str, Any],
    base: Path,
    types: dict[str, type],
    *,
    suffix: str,
) -> None:
    """Takes what a row says about a person; notes where it contradicts an earlier row."""
    known = people.setdefault(person, _Person(index, suffix))
    for name, cell in cells.items():
        if name == "id":
            continue
        now, column = str(cell) if name in _OWN else cell, f"{name}{suffix}"
        if name == "image":
            now = ";".join(str(PurePath(part)) for part in _names(now))  # ./anna.jpg is anna.jpg
        if name not in known.cells:
            known.cells[name], known.said[name] = now, (index, column)
            if name == "image":
                known.images = _paths(table, index, column, now, base)
        elif known.cells[name] != now:
            here, then = (
                value[:60] if isinstance(value, str) else value
                for value in (now, known.cells[name])
            )
            first = table.places[known.said[name][0]]
            table.problem(index, column, f"{person!r} has {here!r} here and {then!r} in {first}.")


def _names(cell: str) -> list[str]:
    """Names of the photos of a cell."""
    return [name for name in (part.strip() for part in cell.split(";")) if name]


def _paths(table: Table, index: int, column: str, cell: str, base: Path) -> tuple[Path, ...]:
    """Paths of a cell, inside the image folder.

    A path that leaves it, or can be none, is a problem.
    """
    paths = []
    root = base.resolve()
    for name in _names(cell):
        target = base / name
        try:
            inside = not Path(name).is_absolute() and target.resolve().is_relative_to(root)
            exists, is_folder = inside and target.is_file(), inside and target.is_dir()
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # a name too long or with a NUL, a loop of links
            reason = getattr(error, "strerror", None) or error
            table.problem(index, column, f"{name[:60]!r} cannot be opened ({reason}).")
            continue
        if exists:
            paths.append(target)
        elif inside:
            beside = (table.path.parent / name).is_file()
            hint = f", but in {table.path.parent}: leave `images` (--images) out" if beside else ""
            fault = "is a folder" if is_folder else "does not exist"
            table.problem(index, column, f"{name!r} {fault} in {base}{hint}.")
        else:
            table.problem(index, column, f"{name!r} leaves the image folder {base}.")
    return tuple(paths)


def _finish(
    table: Table,
    people: dict[str, _Person],
    types: dict[str, type],
    check_images: bool,
    progress: bool,
) -> dict[str, Profile]:
    for person, known in people.items():
        if not known.cells.keys() & {"image", "text"}:
            table.problem(
                known.row, f"image{known.suffix}", f"{person!r} has neither a photo nor a text."
            )
    if check_images:
        owners: dict[Path, tuple[int, str]] = {}
        for known in people.values():
            for image in known.images:
                owners.setdefault(image, known.said["image"])
        for image, problem in _broken(list(owners), progress).items():
            table.problem(*owners[image], problem)
    return {
        person: Profile(
            person,
            known.images,
            known.cells.get("text", ""),
            {
                name: _typed(value, types[name])
                for name, value in known.cells.items()
                if name not in _OWN
            },
        )
        for person, known in people.items()
    }


def _broken(files: Sequence[Path], progress: bool) -> dict[Path, str]:
    """Problems of photos, each file decoded once."""
    with ThreadPoolExecutor() as pool:
        checked: Iterable[str | None] = pool.map(check_image, files)
        found = list(
            track(
                checked, "Checking photos", total=len(files), disable=not progress, transient=True
            )
        )
    return {file: problem for file, problem in zip(files, found, strict=True) if problem}


def _require(table: Table, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in table.columns and (table.columns or table.rows):
            close = difflib.get_close_matches(column, table.columns, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            table.problems.append(f"{table.path.name}: there is no column {column!r}.{hint}")


def _usable(table: Table, columns: Sequence[str]) -> bool:
    return all(column in table.columns for column in columns)


def _failed(table: Table) -> DataError:
    return DataError(f"{table.path}: {len(table.problems)} problems:", table.problems)


def _attribute_types(table: Table, columns: Sequence[str]) -> dict[str, type]:
    """One type per attribute.

    Bool, int or float where every value of both sides is one, else text.
    """
    values: dict[str, list[Any]] = {}
    for column in columns:
        name = (
            column[:-2]
            if column[-2:] in ("_a", "_b") and f"id{column[-2:]}" in table.columns
            else column
        )
        values.setdefault(name, []).extend(row[column] for row in table.rows if column in row)
    return {
        name: next((t for t in (bool, int, float) if all(_fits(v, t) for v in found)), str)
        for name, found in values.items()
    }


def _fits(value: Any, kind: type) -> bool:
    try:
        _typed(value, kind)
    except ValueError:
        return False
    return True


def _typed(value: Any, kind: type) -> AttributeValue:
    if kind is bool:
        word = str(value).lower()
        if word not in ("true", "false"):
            raise ValueError(word)
        return word == "true"
    if kind in (int, float):
        if isinstance(value, bool):
            raise ValueError(value)
        digits = str(value).lstrip("+-")
        if "_" in digits or (
            digits[:1] == "0" and digits[1:2].isdigit()
        ):  # 1_2 is no number, 01234 a postcode
            raise ValueError(value)
        number = kind(value if isinstance(value, str) else repr(value))
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError(value)
        return cast(AttributeValue, number)
    return str(value)

"""Profiles from the rows of a table, in which several rows may describe one person."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.types import AttributeValue, Profile
from pairmatch.data.attributes import AttributeType, convert, infer_types
from pairmatch.data.photos import (
    NamedPhoto,
    PhotoOptions,
    broken_photos,
    find_photos,
    normalize_photo_cell,
    wrong_folder,
)
from pairmatch.io.tables import Table

_FIELDS = ("id", "image", "text")  # every other column is an attribute


@dataclass(slots=True)
class _Description:
    """What the rows of a table state about one person.

    Attributes:
        row: Position of the first row.
        suffix: Suffix of that row's columns: `_a`, `_b`, or none in a profiles file.
        cells: Values by name, without suffix.
        sources: Row and column of each value.
        photos: The photos that the cell of photos names.
    """

    row: int
    suffix: str
    cells: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, tuple[int, str]] = field(default_factory=dict)
    photos: list[NamedPhoto] = field(default_factory=list)


class ProfileRows:
    """Merges rows into profiles, and records contradictions and unusable photos in the table.

    Args:
        table: Table with the rows.
        photos: How photos are found and checked.
        columns: Name of the field or attribute by column.
        text_columns: Columns and attributes that are text, whatever their cells look like.
    """

    def __init__(
        self,
        table: Table,
        photos: PhotoOptions,
        columns: Mapping[str, str],
        text_columns: Collection[str] = (),
    ) -> None:
        self._table = table
        self._photos = photos
        self._columns = columns
        self._text_columns = text_columns
        self._people: dict[str, _Description] = {}
        #: People that cannot be read: the photos that they name cannot, or there is nothing.
        self.unreadable: set[str] = set()

    def add(self, row: int, person: str, cells: Mapping[str, Any], *, suffix: str = "") -> None:
        """Adds what a row states about a person.

        Args:
            row: Position of the row.
            person: Id of the person.
            cells: Values by name, without suffix; None if they are missing.
            suffix: Suffix of the columns that the values are from.
        """
        description = self._people.setdefault(person, _Description(row, suffix))
        for name, cell in cells.items():
            if name == "id" or cell is None:
                continue
            column = f"{name}{suffix}"
            value = _normalize(name, cell)
            if name not in description.cells:
                description.cells[name] = value
                description.sources[name] = (row, column)
                if name == "image":
                    description.photos = find_photos(cell, self._photos)
            elif description.cells[name] != value:
                first_row, _ = description.sources[name]
                self._table.problem(
                    row,
                    column,
                    f"{person!r} has {_shorten(value)!r} here and "
                    f"{_shorten(description.cells[name])!r} in {self._table.locations[first_row]}.",
                )

    def profiles(self) -> dict[str, Profile]:
        """Profiles by id, without those in `unreadable`; all that is wrong is a problem."""
        self._report_photos()
        for person, description in self._people.items():
            if description.cells:
                continue
            self.unreadable.add(person)
            column = f"image{description.suffix}"
            if (description.row, column) not in self._table.reported:
                self._table.problem(
                    description.row,
                    column,
                    f"{person!r} has neither a photo nor a text nor an attribute.",
                )
        broken = self._broken_photos() if self._photos.check_images else {}
        types = infer_types(self._table, self._columns, self._text_columns)
        people = {}
        for person, description in self._people.items():
            images = tuple(
                photo.path
                for photo in description.photos
                if not photo.problem and photo.path not in broken
            )
            if description.photos and not images:
                self.unreadable.add(person)
            text = description.cells.get("text", "")
            attributes = self._attributes(description, types)
            if person not in self.unreadable:
                people[person] = Profile(person, images, text, attributes)
        return people

    def _attributes(
        self, description: _Description, types: Mapping[str, AttributeType]
    ) -> dict[str, AttributeValue]:
        attributes = {}
        for name, value in description.cells.items():
            if name not in _FIELDS:
                try:
                    attributes[name] = convert(name, value, types[name])
                except ValueError as error:
                    self._table.problem(*description.sources[name], str(error))
        return attributes

    def _report_photos(self) -> None:
        """Records the photos that cannot be used, once each; a wrong folder is one problem."""
        named = [
            (photo, description.sources["image"])
            for description in self._people.values()
            for photo in description.photos
        ]
        photos = [photo for photo, _ in named]
        problem = wrong_folder(photos, self._photos, self._table.path.parent)
        if problem is not None:
            self._table.problem_of_file(problem)
            return
        for photo, (row, column) in named:
            if photo.problem:
                self._table.problem(row, column, photo.problem)

    def _broken_photos(self) -> Collection[Path | str]:
        """Decodes each photo once; a broken one is a problem of the first cell that names it."""
        sources: dict[Path | str, tuple[int, str]] = {}
        for description in self._people.values():
            for photo in description.photos:
                if not photo.problem:
                    sources.setdefault(photo.path, description.sources["image"])
        broken = broken_photos(list(sources), progress=self._photos.progress)
        for path, problem in broken.items():
            kind = problem.removeprefix(f"{path}: ")
            self._table.problem(*sources[path], problem, kind=kind)
        return broken


class SidedProfileRows:
    """Profiles from a pairs file: columns in `_a` describe the person `id_a`, in `_b` `id_b`.

    Args:
        table: Table with the rows.
        photos: How photos are found and checked.
        text_columns: Columns and attributes that are text, whatever their cells look like.
    """

    def __init__(
        self, table: Table, photos: PhotoOptions, text_columns: Collection[str] = ()
    ) -> None:
        self._table = table
        names = {
            column: column[:-2]
            for column in table.columns
            if column.endswith(("_a", "_b")) and len(column) > 2
        }
        self._rows = ProfileRows(table, photos, names, text_columns)
        columns = {
            side: [
                (name, table.cells[column])
                for column, name in names.items()
                if column[-1] == side and name != "id"
            ]
            for side in "ab"
        }
        for row, ids in enumerate(zip(table.column("id_a"), table.column("id_b"), strict=True)):
            for side, person in zip("ab", ids, strict=True):
                # The cells of a person without id are checked, too
                person = person or f"the person of {table.locations[row]}, column id_{side}"
                cells = {name: cells[row] for name, cells in columns[side]}
                self._rows.add(row, person, cells, suffix=f"_{side}")

    def profiles(self) -> tuple[dict[str, Profile], set[str]]:
        """Profiles by id, and the people that cannot be read; all that is wrong is a problem."""
        return self._rows.profiles(), self._rows.unreadable


def _normalize(name: str, cell: Any) -> Any:
    """Value of a cell; equal photos and texts have equal values."""
    if name not in _FIELDS:
        return cell
    return normalize_photo_cell(cell) if name == "image" else str(cell)


def _shorten(value: Any) -> Any:
    text = ";".join(value) if isinstance(value, tuple) else value
    return text[:60] if isinstance(text, str) else text

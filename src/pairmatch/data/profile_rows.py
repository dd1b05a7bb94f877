"""Profiles from the rows of a table, in which several rows may describe one person."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.types import AttributeValue, Profile
from pairmatch.data.attributes import convert, infer_types
from pairmatch.data.photos import (
    PhotoOptions,
    broken_photos,
    normalize_photo_cell,
    resolve_photos,
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
        images: Paths to the photos.
    """

    row: int
    suffix: str
    cells: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, tuple[int, str]] = field(default_factory=dict)
    images: tuple[Path, ...] = ()


class ProfileRows:
    """Merges rows into profiles, and records contradictions and unusable photos in the table.

    Args:
        table: Table with the rows.
        photos: How photos are found and checked.
        columns: Name of the field or attribute by column.
        text_attributes: Attributes that are text, whatever their cells look like.
    """

    def __init__(
        self,
        table: Table,
        photos: PhotoOptions,
        columns: Mapping[str, str],
        text_attributes: Collection[str] = (),
    ) -> None:
        self._table = table
        self._photos = photos
        self._columns = columns
        self._text_attributes = text_attributes
        self._people: dict[str, _Description] = {}

    def first_row(self, person: str) -> int | None:
        """Position of the first row about a person; None if there is none."""
        description = self._people.get(person)
        return None if description is None else description.row

    def add(self, row: int, person: str, cells: Mapping[str, Any], *, suffix: str = "") -> None:
        """Adds what a row states about a person.

        Args:
            row: Position of the row.
            person: Id of the person.
            cells: Values by name, without suffix.
            suffix: Suffix of the columns that the values are from.
        """
        description = self._people.setdefault(person, _Description(row, suffix))
        for name, cell in cells.items():
            if name == "id":
                continue
            column = f"{name}{suffix}"
            value = _normalize(name, cell)
            if name not in description.cells:
                description.cells[name] = value
                description.sources[name] = (row, column)
                if name == "image":
                    description.images = resolve_photos(
                        self._table, row, column, str(cell), self._photos
                    )
            elif description.cells[name] != value:
                first_row, _ = description.sources[name]
                self._table.problem(
                    row,
                    column,
                    f"{person!r} has {_shorten(value)!r} here and "
                    f"{_shorten(description.cells[name])!r} in {self._table.locations[first_row]}.",
                )

    def profiles(self) -> dict[str, Profile]:
        """Profiles by id; people without content and broken photos are recorded as problems."""
        for person, description in self._people.items():
            if not description.cells:
                self._table.problem(
                    description.row,
                    f"image{description.suffix}",
                    f"{person!r} has neither a photo nor a text nor an attribute.",
                )
        if self._photos.check_images:
            self._check_photos()
        types = infer_types(self._table, self._columns, self._text_attributes)
        return {
            person: Profile(
                person,
                description.images,
                description.cells.get("text", ""),
                self._attributes(description, types),
            )
            for person, description in self._people.items()
        }

    def _attributes(
        self, description: _Description, types: Mapping[str, type]
    ) -> dict[str, AttributeValue]:
        attributes = {}
        for name, value in description.cells.items():
            if name not in _FIELDS:
                try:
                    attributes[name] = convert(value, types[name])
                except ValueError as error:
                    self._table.problem(*description.sources[name], str(error))
        return attributes

    def _check_photos(self) -> None:
        """Decodes each photo once; a broken one is a problem of the first cell that names it."""
        sources: dict[Path, tuple[int, str]] = {}
        for description in self._people.values():
            for image in description.images:
                sources.setdefault(image, description.sources["image"])
        for image, problem in broken_photos(list(sources), progress=self._photos.progress).items():
            self._table.problem(*sources[image], problem)


class SidedProfileRows:
    """Profiles from a pairs file: columns in `_a` describe the person `id_a`, in `_b` `id_b`.

    Args:
        table: Table with the rows.
        photos: How photos are found and checked.
    """

    def __init__(self, table: Table, photos: PhotoOptions) -> None:
        self._table = table
        self._columns = {
            side: [name for name in table.columns if name.endswith(f"_{side}") and name[:-2]]
            for side in "ab"
        }
        sided = {*self._columns["a"], *self._columns["b"]}
        names = {column: column[:-2] for column in table.columns if column in sided}
        self._rows = ProfileRows(table, photos, names)

    def add(self, row: int, ids: Mapping[str, str]) -> None:
        """Adds what a row states about its two people, by their ids."""
        cells = self._table.rows[row]
        for side, person in ids.items():
            # The cells of a person without id are checked, too
            name = person or f"the person of {self._table.locations[row]}, column id_{side}"
            values = {
                column[:-2]: cells[column] for column in self._columns[side] if column in cells
            }
            self._rows.add(row, name, values, suffix=f"_{side}")

    def profiles(self) -> dict[str, Profile]:
        """Profiles by id; people without content and broken photos are recorded as problems."""
        return self._rows.profiles()


def _normalize(name: str, cell: Any) -> Any:
    """Value of a cell; equal photos and texts have equal values."""
    if name not in _FIELDS:
        return cell
    return normalize_photo_cell(str(cell)) if name == "image" else str(cell)


def _shorten(value: Any) -> Any:
    return value[:60] if isinstance(value, str) else value

"""Blocks: people in an Arrow table next to their vectors, often memory-mapped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pairmatch.core.arrays import Ints, Vectors, check_count
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.attributes import (
    PREFIX,
    Attributes,
    attribute_column,
    attributes_of,
    kind_of_arrow,
)
from pairmatch.rules import Column, Columns, Kind, Mask

_FEW_IDS = 4  # up to this number, comparing is faster than hashing all ids

Chunk = tuple[list[str], list[dict[str, AttributeValue]], Vectors]
#: Attributes and embedding [K] of one person.
Entry = tuple[dict[str, AttributeValue], Vectors]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """People that were added together. Immutable: removing people makes a new block.

    Attributes:
        people: Arrow table of n rows: `id`, and one column per attribute.
        vectors: [n, K] float32.
        alive: [n] bool: False for people that were removed or replaced later.
    """

    people: pa.Table
    vectors: Vectors
    alive: Mask
    _columns: dict[str, Column | None] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, people: pa.Table, vectors: Vectors) -> Block:
        """A block of people that are all alive."""
        return cls(people, vectors, np.ones(len(vectors), bool))

    @classmethod
    def from_people(
        cls, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors
    ) -> Block:
        """A block of ids with their attributes and vectors."""
        names = dict.fromkeys(name for row in attributes for name in row)
        columns = {"id": pa.array(ids, pa.string())}
        for name in names:
            columns[PREFIX + name] = attribute_column([row.get(name) for row in attributes])
        return cls.of(pa.table(columns), vectors)

    @classmethod
    def merged(cls, blocks: Sequence[Block]) -> Block:
        """Merges the people that are alive into one block."""
        people = pa.concat_tables(
            [block.living() for block in blocks], promote_options="permissive"
        )
        vectors = np.concatenate([block.vectors[block.alive] for block in blocks])
        return cls.of(people.combine_chunks(), vectors)

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def ids(self) -> pa.ChunkedArray:
        """Ids of all n rows."""
        return self.people["id"]

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of each attribute, by name."""
        return {
            column.name.removeprefix(PREFIX): kind_of_arrow(column.type)
            for column in self.people.schema
            if column.name.startswith(PREFIX) and not pa.types.is_null(column.type)
        }

    def living(self) -> pa.Table:
        """The table of the people that are alive."""
        return self.people if self.alive.all() else self.people.filter(pa.array(self.alive))

    def take(self, rows: Ints) -> Block:
        """A block with a copy of some rows."""
        return Block.of(self.people.take(pa.array(rows)), self.vectors[rows])

    def without(self, ids: pa.Array) -> Block:
        """The block after the removal of people; the same object if none of them is alive."""
        rows = self.find(ids)
        if not len(rows):
            return self
        alive = self.alive.copy()
        alive[rows] = False
        return dataclasses.replace(self, alive=alive)

    def find(self, ids: pa.Array) -> Ints:
        """[…] int64: rows of people that are alive, in ascending order."""
        if len(ids) <= _FEW_IDS:
            mask = np.zeros(len(self), bool)
            for person in ids:
                mask |= _numpy(pc.equal(self.ids, person))
        else:
            mask = _numpy(pc.is_in(self.ids, value_set=ids))
        return np.flatnonzero(mask & self.alive)

    def columns(self, names: Sequence[str]) -> Columns:
        """Attributes as columns to evaluate rules on, without those that no person here has."""
        for name in names:
            if name not in self._columns:
                self._columns[name] = self._column(name)
        return {name: column for name in names if (column := self._columns[name]) is not None}

    def _column(self, name: str) -> Column | None:
        if PREFIX + name not in self.people.column_names:
            return None
        values = self.people[PREFIX + name].combine_chunks()
        if pa.types.is_null(values.type):
            return None
        known = values.is_valid().to_numpy(zero_copy_only=False)
        kind = kind_of_arrow(values.type)
        if kind == "text":
            coded = values.dictionary_encode()
            codes = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
            return Column("text", codes, known, tuple(coded.dictionary.to_pylist()))
        if kind == "bool":
            return Column("bool", pc.fill_null(values, False).to_numpy(zero_copy_only=False), known)
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.float64)
        return Column("number", numbers, known & ~np.isnan(numbers))

    def attributes(self, row: int) -> dict[str, AttributeValue]:
        """Attributes of one person."""
        return attributes_of(self.people.slice(row, 1))[0]


def chunks_of(blocks: Iterable[Block], rows: int) -> Iterator[Chunk]:
    """Yields the people that are alive in order, `rows` at a time: ids, attributes, vectors."""
    rows = check_count("chunks(rows=...)", rows)
    ids: list[str] = []
    attributes: list[dict[str, AttributeValue]] = []
    vectors: list[Vectors] = []
    for block in blocks:
        alive = np.flatnonzero(block.alive)
        start = 0
        while start < len(alive):
            part = alive[start : start + rows - len(ids)]
            start += len(part)
            people = block.people.take(pa.array(part))
            ids += people["id"].to_pylist()
            attributes += attributes_of(people)
            vectors.append(block.vectors[part])
            if len(ids) == rows:
                yield ids, attributes, np.concatenate(vectors)
                ids, attributes, vectors = [], [], []
    if ids:
        yield ids, attributes, np.concatenate(vectors)


def ids_at(rows: Ints, blocks: Sequence[Block]) -> Any:
    """Ids at row numbers that continue from block to block; None if the row is −1."""
    ids = np.full(rows.shape, None, object)
    start = 0
    for block in blocks:
        inside = (rows >= start) & (rows < start + len(block))
        if inside.any():
            ids[inside] = block.ids.take(pa.array(rows[inside] - start)).to_pylist()
        start += len(block)
    return ids


def vectors_of(column: pa.FixedSizeListArray) -> Vectors:
    """[n, K] float32: the rows of a list column, without a copy."""
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), -1)


def _numpy(mask: pa.ChunkedArray) -> Mask:
    flags: Mask = mask.combine_chunks().to_numpy(zero_copy_only=False)
    return flags

"""The pieces that a gallery is made of.

People in Arrow tables beside their vectors, often memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue
from pairmatch.rules import Column, Columns, Kind, Mask, kind_of

_PREFIX = "attribute."
_FEW = 4
Vectors = npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Block:
    """People that came together.

    Attributes:
        people: Arrow table: `id`, and a column for every attribute that somebody has.
        vectors: [n, K] float32.
        alive: [n] bool: False for those who were removed or replaced since.
    """

    people: pa.Table
    vectors: Vectors
    alive: Mask
    _columns: dict[str, Column | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        attributes: Sequence[Mapping[str, AttributeValue]],
        vectors: Vectors,
    ) -> Block:
        names = dict.fromkeys(name for own in attributes for name in own)
        columns = {"id": pa.array(ids, pa.string())}
        for name in names:
            columns[_PREFIX + name] = _array([own.get(name) for own in attributes])
        return cls(pa.table(columns), vectors, np.ones(len(ids), bool))

    @classmethod
    def merged(cls, blocks: Sequence[Block]) -> Block:
        """One block of those who are alive in several."""
        people = pa.concat_tables(
            [block.living() for block in blocks], promote_options="permissive"
        )
        vectors = np.concatenate([block.vectors[block.alive] for block in blocks])
        return cls(people.combine_chunks(), vectors, np.ones(len(vectors), bool))

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def ids(self) -> pa.ChunkedArray:
        return self.people["id"]

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of every attribute, by name."""
        found: dict[str, Kind] = {}
        for one in self.people.schema:
            if one.name.startswith(_PREFIX) and not pa.types.is_null(one.type):
                found[one.name.removeprefix(_PREFIX)] = kind_of_arrow(one.type)
        return found

    def living(self) -> pa.Table:
        """The table of those who are alive."""
        return self.people if self.alive.all() else self.people.filter(pa.array(self.alive))

    def find(self, wanted: pa.Array, *, dead: bool = False) -> Ints:
        """[…] int64: rows of people, those alive or everybody."""
        if len(wanted) <= _FEW:  # comparing a few times is faster than hashing everybody
            there = np.zeros(len(self), bool)
            for person in wanted:
                there |= pc.equal(self.ids, person).combine_chunks().to_numpy(zero_copy_only=False)
        else:
            there = (
                pc.is_in(self.ids, value_set=wanted).combine_chunks().to_numpy(zero_copy_only=False)
            )
        return np.flatnonzero(there if dead else there & self.alive)

    def columns(self, names: Sequence[str]) -> Columns:
        """Attributes as columns to evaluate rules on; those that nobody here has are left out."""
        for name in names:
            if name not in self._columns:
                self._columns[name] = self._column(name)
        return {name: column for name in names if (column := self._columns[name]) is not None}

    def _column(self, name: str) -> Column | None:
        if _PREFIX + name not in self.people.column_names:
            return None
        values = self.people[_PREFIX + name].combine_chunks()
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
        return Column(
            "number",
            pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.float64),
            known,
        )

    def attributes(self, row: int) -> dict[str, AttributeValue]:
        """What one person has."""
        return attributes_of(self.people.slice(row, 1))[0]


def plain(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Attributes as they are kept.

    NumPy's scalars as Python's, NaN as missing, large numbers as floats.
    """
    values = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attributes.items()
    }
    return {
        name: float(value) if type(value) is int and abs(value) > 2**53 else value
        for name, value in values.items()
        if value == value  # NaN alone differs from itself
    }


def attributes_of(people: pa.Table) -> list[dict[str, AttributeValue]]:
    """The attributes of every row, without those that are missing."""
    names = [name for name in people.column_names if name.startswith(_PREFIX)]
    rows: list[dict[str, Any]] = people.select(names).to_pylist()
    return [{k.removeprefix(_PREFIX): v for k, v in row.items() if v is not None} for row in rows]


def check_attributes(
    ids: Sequence[str], attributes: Sequence[Mapping[str, AttributeValue]], kinds: dict[str, Kind]
) -> dict[str, Kind]:
    """Kinds of attributes with those of newcomers.

    Raises:
        ConfigurationError: An attribute that is of another kind than it was, with the first person
            who has it.
    """
    merged = dict(kinds)
    problems = []
    for person, own in zip(ids, attributes, strict=True):
        for name, value in own.items():
            kind = kind_of(value)
            if merged.setdefault(name, kind) != kind:
                problems.append(
                    f"{name!r} of {person!r} is {kind}, for others it is {merged[name]}"
                )
    if problems:
        raise ConfigurationError(
            f"An attribute is of one kind for everybody in a gallery: {'; '.join(problems[:5])}"
            f"{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}."
        )
    return merged


def _array(values: list[Any]) -> pa.Array:
    if any(isinstance(value, float) for value in values):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values)


def kind_of_arrow(arrow: pa.DataType) -> Kind:
    """The kind of an attribute whose column has an Arrow type."""
    if pa.types.is_boolean(arrow):
        return "bool"
    return "text" if pa.types.is_string(arrow) or pa.types.is_large_string(arrow) else "number"

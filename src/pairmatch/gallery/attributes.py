"""Attributes as galleries keep them: plain values, one kind per attribute, Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue
from pairmatch.rules import Kind, kind_of

#: Prefix of the columns of attributes in Arrow tables; part of the file format.
PREFIX = "attribute."
_SHOWN_PROBLEMS = 5

Attributes = Mapping[str, AttributeValue]


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Converts NumPy scalars to Python values and large integers to floats, and drops NaN."""
    values = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attributes.items()
    }
    return {
        name: float(value) if type(value) is int and abs(value) > 2**53 else value
        for name, value in values.items()
        if value == value  # NaN is the only value that differs from itself
    }


def attributes_of(people: pa.Table) -> list[dict[str, AttributeValue]]:
    """Returns the attributes of each row, without missing values."""
    names = [name for name in people.column_names if name.startswith(PREFIX)]
    rows: list[dict[str, Any]] = people.select(names).to_pylist()
    return [
        {
            name.removeprefix(PREFIX): value
            for name, value in row.items()
            if value is not None and value == value  # NaN
        }
        for row in rows
    ]


def merge_kinds(
    ids: Sequence[str], attributes: Sequence[Attributes], kinds: Mapping[str, Kind]
) -> dict[str, Kind]:
    """Returns the kinds of attributes after people are added.

    Args:
        ids: Ids of the added people.
        attributes: Attributes of the added people.
        kinds: Kinds of the attributes of the people so far.

    Raises:
        ConfigurationError: An attribute has two kinds; the message names the people.
    """
    merged = dict(kinds)
    problems = []
    for person, row in zip(ids, attributes, strict=True):
        for name, value in row.items():
            kind = kind_of(value)
            if merged.setdefault(name, kind) != kind:
                problems.append(
                    f"{name!r} of {person!r} is {kind}, for others it is {merged[name]}"
                )
    if problems:
        shown = "; ".join(problems[:_SHOWN_PROBLEMS])
        rest = len(problems) - _SHOWN_PROBLEMS
        raise ConfigurationError(
            "An attribute must have the same kind for all people in a gallery: "
            f"{shown}{f' and {rest} more' if rest > 0 else ''}."
        )
    return merged


def attribute_column(values: list[Any]) -> pa.Array:
    """Converts the values of an attribute to an Arrow array; a float makes all of them floats."""
    if any(isinstance(value, float) for value in values):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values)


def kind_of_arrow(arrow: pa.DataType) -> Kind:
    """Returns the kind of an attribute whose column has an Arrow type."""
    if pa.types.is_boolean(arrow):
        return "bool"
    return "text" if pa.types.is_string(arrow) or pa.types.is_large_string(arrow) else "number"

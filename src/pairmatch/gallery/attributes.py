"""Attributes as galleries keep them: plain values, one kind per attribute, Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import has_surrogates, printable
from pairmatch.core.types import AttributeValue
from pairmatch.rules import Kind, kind_of

#: Prefix of the columns of attributes in Arrow tables; part of the file format.
PREFIX = "attribute."
_SHOWN_PROBLEMS = 5
_MOST_EXACT = 2**53

Attributes = Mapping[str, AttributeValue]


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Converts attributes to text, bools, ints and floats; None and NaN are missing values.

    Integers that no float holds exactly become floats.

    Raises:
        ConfigurationError: They are no mapping; or lists all attributes that have another type, are
            too large, or hold characters that no file can hold.
    """
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(
            f"Attributes must be a mapping of names to values, got {type(attributes).__name__}."
        )
    plain: dict[str, AttributeValue] = {}
    problems = []
    for name, value in attributes.items():
        try:
            if not isinstance(name, str):
                raise ConfigurationError("a name must be text")
            converted = _plain(value)
            if has_surrogates(name) or (isinstance(converted, str) and has_surrogates(converted)):
                raise ConfigurationError("it holds characters that are not valid Unicode")
        except ConfigurationError as error:
            problems.append(f"{printable(str(name))!r}: {str(error).removesuffix('.')}")
        else:
            if converted is not None:
                plain[name] = converted
    if problems:
        raise ConfigurationError(f"Attributes cannot be used: {'; '.join(problems)}.")
    return plain


def _plain(value: Any) -> AttributeValue | None:
    if type(value) in (str, bool):
        return value
    if value is None or (isinstance(value, float | np.floating) and value != value):
        return None
    kind = kind_of(value)
    if kind == "text":
        return str(value)
    if kind == "bool":
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if abs(int(value)) <= _MOST_EXACT:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        raise ConfigurationError("the number is too large.") from None


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


def fit_attributes(
    ids: Sequence[str], attributes: Sequence[Attributes], kinds: Mapping[str, Kind]
) -> tuple[list[Attributes], dict[str, Kind]]:
    """Gives the attributes of added people the kinds that they have in a gallery.

    An attribute is text, a number or a bool for all people. Text stays text: a new attribute is
    text if any of the people has text, and a whole number among text becomes text, as a postal code
    read from a table in which all of them look like numbers.

    Args:
        ids: Ids of the added people.
        attributes: Attributes of the added people.
        kinds: Kinds of the attributes of the people so far.

    Returns:
        The attributes, and the kinds after the people are added.

    Raises:
        ConfigurationError: An attribute has two kinds; the message names the people.
    """
    merged = dict(kinds)
    # One value of each type stands for all: kinds depend on types
    samples = {(name, type(value)): value for row in attributes for name, value in row.items()}
    found = [(name, kind_of(value)) for (name, _), value in samples.items()]
    for name, kind in found:
        if name not in kinds and (name not in merged or kind == "text"):
            merged[name] = kind
    if all(kind == merged[name] for name, kind in found):
        return list(attributes), merged
    fitted: list[Attributes] = []
    problems = []
    for person, row in zip(ids, attributes, strict=True):
        values = {name: as_kind(value, merged[name]) for name, value in row.items()}
        fitted.append(values)
        problems += [
            f"{printable(name)!r} of {printable(person)!r} is {kind_of(value)}, for others it is "
            f"{merged[name]}"
            for name, value in values.items()
            if kind_of(value) != merged[name]
        ]
    if problems:
        shown = "; ".join(problems[:_SHOWN_PROBLEMS])
        rest = len(problems) - _SHOWN_PROBLEMS
        raise ConfigurationError(
            "An attribute must have the same kind for all people in a gallery: "
            f"{shown}{f' and {rest} more' if rest > 0 else ''}. Correct these values; or, if the "
            "attribute is text that may look like a number or a bool, build the gallery again from "
            "all people at once."
        )
    return fitted, merged


def as_kind(value: AttributeValue, kind: Kind | None) -> AttributeValue:
    """The value; as text if it is a whole number and the attribute is text."""
    if kind != "text" or isinstance(value, bool | str) or not float(value).is_integer():
        return value
    return str(int(value))


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


def is_attribute(arrow: pa.DataType) -> bool:
    """Whether a column of an Arrow type can hold an attribute."""
    return (
        pa.types.is_boolean(arrow)
        or pa.types.is_integer(arrow)
        or pa.types.is_floating(arrow)
        or pa.types.is_string(arrow)
        or pa.types.is_large_string(arrow)
        or pa.types.is_null(arrow)
    )

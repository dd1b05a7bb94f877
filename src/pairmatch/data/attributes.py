"""Types of attributes: one per attribute, inferred from all of its values in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pairmatch.core.types import AttributeValue
from pairmatch.io.tables import Table


def infer_types(table: Table, columns: Mapping[str, str]) -> dict[str, type]:
    """Type of each attribute: bool, int or float if every value can be converted, else str.

    Args:
        table: Table with the values.
        columns: Name of the attribute by column; several columns may hold one attribute.
    """
    values: dict[str, list[Any]] = {}
    for column, attribute in columns.items():
        cells = [row[column] for row in table.rows if column in row]
        values.setdefault(attribute, []).extend(cells)
    return {attribute: _common_type(cells) for attribute, cells in values.items()}


def convert(value: Any, kind: type) -> AttributeValue:
    """Converts a cell to bool, int, float or str.

    Raises:
        ValueError: The cell is not a value of this type.
    """
    if kind is bool:
        return _to_bool(value)
    if kind in (int, float):
        return _to_number(value, kind)
    return str(value)


def _common_type(cells: Sequence[Any]) -> type:
    for kind in (bool, int, float):
        if all(_is_convertible(cell, kind) for cell in cells):
            return kind
    return str


def _is_convertible(value: Any, kind: type) -> bool:
    try:
        convert(value, kind)
    except ValueError:
        return False
    return True


def _to_bool(value: Any) -> bool:
    word = str(value).lower()
    if word not in ("true", "false"):
        raise ValueError(word)
    return word == "true"


def _to_number(value: Any, kind: type) -> AttributeValue:
    if isinstance(value, bool):
        raise ValueError(value)
    digits = str(value).lstrip("+-")
    has_leading_zero = digits[:1] == "0" and digits[1:2].isdigit()
    if "_" in digits or has_leading_zero:  # 1_2 is not a number, 01234 is a postcode
        raise ValueError(value)
    number = kind(value if isinstance(value, str) else repr(value))
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return cast(AttributeValue, number)

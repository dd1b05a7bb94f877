"""Types of attributes: one per attribute, for all of its values in a table."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pairmatch.core.text import printable
from pairmatch.core.types import AttributeValue
from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
# 01234 is a postcode, +49171 a phone number, 1_2 a name
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_LARGEST_EXACT = 2.0**53  # beyond it a number loses its last digits, so that it is a name
_NEARLY_ALL = 0.9


def infer_types(
    table: Table, columns: Mapping[str, str], text_attributes: Collection[str] = ()
) -> dict[str, type]:
    """Type of each attribute: bool, int, float or str.

    A file that states types, as Parquet and JSON do, is taken at its word. In a CSV file, an
    attribute is a bool if all of its cells are true or false, and a number if all of them are plain
    decimal numbers. In all other cases it is text, for every person.

    Args:
        table: Table with the values.
        columns: Name of the attribute by column; several columns may hold one attribute.
        text_attributes: Attributes that are text, whatever their cells look like.
    """
    values: dict[str, list[Any]] = {}
    for column, attribute in columns.items():
        cells = [row[column] for row in table.rows if column in row]
        values.setdefault(attribute, []).extend(cells)
    kind_of = _declared_type if table.is_typed else _written_type
    types = {
        attribute: str if attribute in text_attributes else kind_of(cells)
        for attribute, cells in values.items()
    }
    if table.is_typed:
        return types
    for attribute, kind in types.items():
        if kind is str and attribute not in text_attributes:
            _report_exceptions(table, attribute, values[attribute])
    return types


def convert(value: Any, kind: type) -> AttributeValue:
    """Converts a cell to the type of its attribute.

    Raises:
        ValueError: The cell is a number that is too large.
    """
    if kind is bool:
        return str(value).lower() == "true"
    if kind is str:
        return str(value)
    if not math.isfinite(float(value)):
        raise ValueError(f"the number {str(value)[:20]}… is too large.")
    return int(value) if kind is int else float(value)


def _declared_type(cells: Sequence[Any]) -> type:
    types = {type(cell) for cell in cells}
    if types <= {int, float}:
        return int if types <= {int} else float
    return types.pop() if len(types) == 1 else str


def _written_type(cells: Sequence[str]) -> type:
    if all(cell.lower() in ("true", "false") for cell in cells):
        return bool
    if not all(map(_is_number, cells)):
        return str
    return int if all(map(_INTEGER.fullmatch, cells)) else float


def _is_number(cell: str) -> bool:
    if not _NUMBER.fullmatch(cell) or not any(map(str.isdigit, cell)):
        return False
    is_exact = abs(float(cell)) < _LARGEST_EXACT or math.isinf(float(cell))
    return is_exact or not _INTEGER.fullmatch(cell)


def _report_exceptions(table: Table, attribute: str, cells: Sequence[str]) -> None:
    """Says which few cells made a column of numbers text."""
    others = [cell for cell in cells if not _is_number(cell)]
    has_names = any(re.match(r"[-+]?0[0-9]|\+", cell) for cell in others)
    if not has_names and len(cells) - len(others) >= _NEARLY_ALL * len(cells):
        _log.warning(
            "%s: the attribute %s is text, because %d of %d cells are not numbers, such as %r.",
            printable(str(table.path)),
            printable(attribute),
            len(others),
            len(cells),
            others[0][:60],
        )

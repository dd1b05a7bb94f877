"""Types of attributes: one per attribute, for all of its values in a table."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pairmatch.core.text import printable
from pairmatch.core.types import AttributeValue
from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
# 01234 is a postcode, +49171 a phone number, 1_2 a name
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
# Numbers with thousands separators, by their decimal separator
_GROUPED = {
    ".": re.compile(r"-?[1-9][0-9]{0,2}([,'\u2019][0-9]{3})+(\.[0-9]+)?"),
    ",": re.compile(
        r"-?([1-9][0-9]{0,2}([. \u00a0\u202f][0-9]{3})+(,[0-9]+)?|(0|[1-9][0-9]*),[0-9]+)"
    ),
}
_DECIMALS = {",": ".", ";": ","}  # that numbers may have, by the separator of columns
_BOOLS = ("true", "false")
_LARGEST_EXACT = 2.0**53  # beyond it a number loses its last digits, so that it is a name
_NAME = re.compile(r"[-+]?0[0-9].*|\+.*")  # digits that a number would not keep
_FEWEST_CELLS = 20  # from which on odd cells do not make a column text
_NEARLY_ALL = 0.95
_MOST_REPORTED = 0.1  # share of odd cells that are reported because they made a column text


@dataclass(frozen=True, slots=True)
class AttributeType:
    """The type of an attribute, and how its numbers are written.

    Attributes:
        kind: bool, int, float or str.
        decimal: The decimal separator of numbers with thousands separators or decimal commas; blank
            for plain numbers.
    """

    kind: type
    decimal: str = ""


def infer_types(
    table: Table, columns: Mapping[str, str], text_columns: Collection[str] = ()
) -> dict[str, AttributeType]:
    """Type of each attribute.

    A file that states types, as Parquet and JSON do, is taken at its word; in a CSV file, cells are
    true or false, decimal numbers, or text. Numbers are plain, or have thousands separators
    (`1,234.5`), or, in files that are not separated by commas, decimal commas (`1.234,5`).

    An attribute has the type of all of its cells, or, if it has at least 20 cells, of 95 % of them:
    the others are problems of their cells. In all other cases it is text, for every person, and so
    is one with a cell such as `01234` or `+4917`.

    Args:
        table: Table with the values.
        columns: Name of the attribute by column; several columns may hold one attribute.
        text_columns: Columns and attributes that are text, whatever their cells look like.
    """
    counts: dict[str, Counter[Any]] = {}
    texts = set()
    for column, attribute in columns.items():
        cells = (cell for cell in table.column(column) if cell is not None)
        count = Counter(map(type, cells) if table.is_typed else cells)
        counts.setdefault(attribute, Counter()).update(count)
        if column in text_columns or attribute in text_columns:
            texts.add(attribute)
    types = {}
    for attribute, count in counts.items():
        if attribute in texts:
            types[attribute] = AttributeType(str)
        elif table.is_typed:
            types[attribute] = AttributeType(_declared_type(count))
        else:
            types[attribute] = _written(table, attribute, count)
    return types


def convert(attribute: str, value: Any, of: AttributeType) -> AttributeValue:
    """Converts a cell to the type of its attribute.

    Raises:
        ValueError: The cell has another type than the attribute, or is a number that is too large.
    """
    kind = of.kind
    if kind is str:
        return str(value)
    if of.decimal:
        value = _plain(value, of.decimal)
    text = str(value)
    if not _has_type(value, kind):
        what = "true or false" if kind is bool else "a number"
        raise ValueError(
            f"{text[:60]!r} is not {what}, as other cells of {attribute} are. Correct it, or read "
            f"the column as text with text_columns=[{attribute!r}] (--text-column {attribute})."
        )
    if kind is bool:
        return text.lower() == "true"
    if not math.isfinite(float(value)):
        raise ValueError(f"the number {text[:20]}… is too large.")
    return int(value) if kind is int else float(value)


def _has_type(value: Any, kind: type) -> bool:
    if kind is bool:
        return str(value).lower() in _BOOLS
    if isinstance(value, str):
        return _is_number(value)
    return not isinstance(value, bool)


def _declared_type(counts: Counter[type]) -> type:
    numbers = counts[int] + counts[float]
    if _are_nearly_all(numbers, counts):
        return float if counts[float] else int
    return bool if _are_nearly_all(counts[bool], counts) else str


def _written_type(counts: Counter[str]) -> type:
    bools = sum(count for cell, count in counts.items() if cell.lower() in _BOOLS)
    if _are_nearly_all(bools, counts):
        return bool
    if not _are_nearly_all(_number_count(counts), counts) or _has_names(counts):
        return str
    return int if all(_INTEGER.fullmatch(cell) for cell in counts if _is_number(cell)) else float


def _number_count(counts: Counter[str]) -> int:
    return sum(count for cell, count in counts.items() if _is_number(cell))


def _written(table: Table, attribute: str, counts: Counter[str]) -> AttributeType:
    """The type of an attribute in a CSV file."""
    kind = _written_type(counts)
    readings = {} if kind is bool else _readings(counts)
    if not readings:
        if kind is str:
            _report_exceptions(table, attribute, counts)
        elif table.separators == {";"}:
            _report_thousands(table, attribute, counts)
        return AttributeType(kind)
    allowed = set(".,").intersection(*(_DECIMALS.get(mark, ".,") for mark in table.separators))
    found = allowed & readings.keys()
    decimal = "".join(found if len(found) == 1 else readings)
    first = next(cell for cell in counts if _plain(cell, decimal[0]) != cell)
    if len(found) != 1:  # with both, 1,234 may be either
        _log.warning(
            "%s: it is not clear how numbers such as %s in the attribute %s are read: they are %s. "
            "Write them without thousands separators and with a decimal point.",
            *(printable(table.location), printable(first), printable(attribute)),
            "text" if kind is str else "problems",
        )
        return AttributeType(kind)
    _log.warning(
        "%s: the attribute %s has numbers such as %s, which are read as %s. Declare it as text "
        "(text_columns=, --text-column) if they are none.",
        *(printable(table.location), printable(attribute), first, _plain(first, decimal)),
    )
    return AttributeType(readings[decimal], decimal)


def _readings(counts: Counter[str]) -> dict[str, type]:
    """Types by decimal separator, of those with which more cells are numbers."""
    found: dict[str, type] = {}
    for decimal in _GROUPED:
        plain: Counter[str] = Counter()
        for cell, count in counts.items():
            plain[_plain(cell, decimal)] += count
        kind = _written_type(plain)
        is_better = _number_count(plain) > _number_count(counts)
        if kind in (int, float) and is_better and not (decimal == "," and _has_both(counts)):
            found[decimal] = kind
    return found


def _has_both(counts: Counter[str]) -> bool:
    """Whether points are evidently both decimal points (1.75) and, maybe, separators (1.234)."""
    points = [cell for cell in counts if "." in cell]
    grouped = [cell for cell in points if _GROUPED[","].fullmatch(cell)]
    return bool(grouped) and any(_is_number(cell) for cell in set(points).difference(grouped))


def _report_thousands(table: Table, attribute: str, counts: Counter[str]) -> None:
    """Says that the points of a file with semicolons may be thousands separators."""
    points = [cell for cell in counts if "." in cell and _is_number(cell)]
    if points and all(map(_GROUPED[","].fullmatch, points)):
        _log.warning(
            "%s: the attribute %s has numbers such as %s, whose point is read as a decimal point. "
            "If it separates thousands, write them without it.",
            *(printable(table.location), printable(attribute), points[0]),
        )


def _plain(cell: str, decimal: str) -> str:
    """A number without thousands separators, with a decimal point; other cells as they are."""
    if not _GROUPED[decimal].fullmatch(cell):
        return cell
    whole, _, fraction = cell.partition(decimal)
    digits = re.sub("[^0-9-]", "", whole)
    return f"{digits}.{fraction}" if fraction else digits


def _are_nearly_all(count: int, counts: Counter[Any]) -> bool:
    total = counts.total()
    return count == total or (total >= _FEWEST_CELLS and count >= _NEARLY_ALL * total)


def _has_names(counts: Counter[str]) -> bool:
    """Whether digits of some cells are no numbers: postal codes, phone numbers, long accounts."""
    return any(
        _NAME.fullmatch(cell) or (_INTEGER.fullmatch(cell) and not _is_number(cell))
        for cell in counts
    )


def _is_number(cell: str) -> bool:
    if not _NUMBER.fullmatch(cell) or not any(map(str.isdigit, cell)):
        return False
    is_exact = abs(float(cell)) < _LARGEST_EXACT or math.isinf(float(cell))
    return is_exact or not _INTEGER.fullmatch(cell)


def _report_exceptions(table: Table, attribute: str, counts: Counter[str]) -> None:
    """Says which few cells made a column of numbers text."""
    others = {cell: count for cell, count in counts.items() if not _is_number(cell)}
    odd = sum(others.values())
    if not _has_names(counts) and odd <= _MOST_REPORTED * counts.total():
        _log.warning(
            "%s: the attribute %s is text, because %d of %d cells are not numbers, such as %r.",
            printable(table.location),
            printable(attribute),
            odd,
            counts.total(),
            next(iter(others))[:60],
        )

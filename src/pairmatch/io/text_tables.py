"""Tables in text files: CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from pairmatch.core.errors import DataError
from pairmatch.io.cells import Cells
from pairmatch.io.encodings import decode_text
from pairmatch.io.files import parse_json

# The limit of the csv module belongs to the process
_LIMIT_LOCK = Lock()


def read_csv(cells: Cells, content: bytes) -> None:
    """Reads the rows of a CSV file."""
    table = cells.table
    text, cells.encoding = decode_text(table.path, content)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1  # the line on which the next row starts: quoted cells may span several lines
    with _LIMIT_LOCK:
        limit = csv.field_size_limit(min(len(text) + 1, 2**31 - 1))
        try:
            header = next(reader, [])
            columns = _csv_header(cells, header)
            start = reader.line_num + 1
            for row in reader:
                _add_csv_row(cells, f"line {start}", header, columns, row)
                start = reader.line_num + 1
        except csv.Error as error:
            table.lost_row(f"line {start}", f" and after cannot be read as CSV: {error}.")
        finally:
            csv.field_size_limit(limit)


def _csv_header(cells: Cells, header: Sequence[str]) -> list[str]:
    """Column names, blank for columns without one.

    Raises:
        DataError: The separator is not a comma, or names occur twice.
    """
    path = cells.table.path
    if header and re.fullmatch("sep=.?", header[0].strip(), re.IGNORECASE):
        raise DataError(
            f"{path}: line 1 is Excel's note about the separator. Delete this line, and separate "
            "columns by commas."
        )
    if len(header) == 1:
        for separator in ";\t|":
            if separator in header[0]:
                raise DataError(
                    f"{path}: line 1 separates columns by {separator!r}. Save the file with "
                    "commas between them."
                )
    columns = [cells.name(cell, "line 1", number) for number, cell in enumerate(header, 1)]
    cells.table.columns = [column for column in columns if column]
    reject_duplicates(path, "line 1", cells.table.columns)
    return columns


def _add_csv_row(
    cells: Cells, location: str, header: Sequence[str], columns: Sequence[str], row: list[str]
) -> None:
    if not any(cell.strip() for cell in row):
        return
    named = [(column, cell) for column, cell in zip(columns, row, strict=False) if column]
    width = max((number for number, column in enumerate(columns, 1) if column), default=0)
    # Blank cells after the last named column say nothing, and neither does their absence
    if len(row) < width or any(cell.strip() for cell in row[len(columns) :]):
        cells.table.lost_row(
            location,
            f": has {len(row)} cells, the header has {len(columns)}."
            " Put quotes around texts that contain commas.",
        )
        cells.checked(location, named)
        return
    for number, (name, column, cell) in enumerate(zip(header, columns, row, strict=False), 1):
        if not column:
            cells.add_unnamed(name, number, [cell])
    cells.add_row(location, named)


def read_json_lines(cells: Cells, content: bytes, *, lists: bool) -> None:
    """Reads the rows of a JSON Lines file.

    Args:
        cells: Receives the cells.
        content: Content of the file.
        lists: Whether values may be lists.
    """
    table = cells.table
    text, cells.encoding = decode_text(table.path, content)
    names: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        location = f"line {number}"
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            table.lost_row(location, f": not valid JSON ({error}).")
            continue
        if not isinstance(row, dict):
            table.lost_row(location, ": not a JSON object.")
            continue
        nested_types = (dict,) if lists else (dict, list)
        nested = [key for key, value in row.items() if isinstance(value, nested_types)]
        if nested:
            table.lost_row(location, f": nested values in {', '.join(nested)}.")
            continue
        for position, key in enumerate(row, 1):
            if key not in names:
                names[key] = cells.name(key, location, position)
            if not names[key]:
                cells.add_unnamed(key, position, [row[key]])
        cells.add_row(location, [(names[key], row[key]) for key in row if names[key]])
    table.columns = list(dict.fromkeys(name for name in names.values() if name))


def reject_duplicates(path: Path, location: str, columns: Sequence[str]) -> None:
    """Raises DataError if names occur twice."""
    duplicates = [name for name, count in Counter(columns).items() if count > 1]
    if duplicates:
        names = ", ".join(map(repr, duplicates))
        raise DataError(f"{path}: {location} names columns twice: {names}.")

"""Tables in text files: CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

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
    rows: list[list[str]] = []
    locations: list[str] = []
    header: list[str] = []
    names: list[str] = []
    with _LIMIT_LOCK:
        limit = csv.field_size_limit(min(len(text) + 1, 2**31 - 1))
        try:
            header = next(reader, [])
            names = _csv_header(cells, header)
            width = max((number for number, name in enumerate(names, 1) if name), default=0)
            start = reader.line_num + 1
            for row in reader:
                if _is_row(cells, f"line {start}", row, len(names), width):
                    rows.append(row)
                    locations.append(f"line {start}")
                start = reader.line_num + 1
        except csv.Error as error:
            location = f"line {start} and after"
            table.lost_row(location, f"cannot be read as CSV: {error}.", stops=True)
        finally:
            csv.field_size_limit(limit)
    columns = {}
    for number, name in enumerate(names):
        column = [row[number] if number < len(row) else "" for row in rows]
        if name:
            columns[name] = column
        else:
            cells.add_unnamed(header[number], number + 1, column)
    cells.add_columns(columns, locations)


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
    reject_duplicates(path, "line 1", [column for column in columns if column])
    return columns


def _is_row(cells: Cells, location: str, row: list[str], columns: int, width: int) -> bool:
    """Whether a row is not blank, and has the cells of the header.

    Args:
        cells: Receives the problem of a row with too few or too many cells.
        location: Location of the row.
        row: Its cells.
        columns: Number of columns of the header.
        width: Number of the last column with a name: blank cells after it say nothing, and neither
            does their absence.
    """
    if not any(cell.strip() for cell in row):
        return False
    if len(row) >= width and not any(cell.strip() for cell in row[columns:]):
        return True
    cells.table.lost_row(
        location,
        f"has {len(row)} cells, the header has {columns}. Put quotes around texts that contain "
        "commas.",
    )
    return False


def read_json_lines(cells: Cells, content: bytes, *, lists: bool) -> None:
    """Reads the rows of a JSON Lines file.

    Args:
        cells: Receives the cells.
        content: Content of the file.
        lists: Whether all values may be lists.
    """
    table = cells.table
    text, cells.encoding = decode_text(table.path, content)
    names: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    locations: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        location = f"line {number}"
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            table.lost_row(location, f"not valid JSON ({error}).")
            continue
        if not isinstance(row, dict):
            table.lost_row(location, "not a JSON object.")
            continue
        for position, key in enumerate(row, 1):
            if key not in names:
                names[key] = cells.name(key, location, position)
            if not names[key]:
                cells.add_unnamed(key, position, [row[key]])
        rows.append({names[key]: cell for key, cell in row.items() if names[key]})
        locations.append(location)
    columns = {}
    for name in dict.fromkeys(filter(None, names.values())):
        columns[name] = [row.get(name) for row in rows]
        if not cells.is_exact(name):
            _flatten(cells, name, columns[name], lists=lists)
    cells.add_columns(columns, locations)


def _flatten(cells: Cells, name: str, column: list[Any], *, lists: bool) -> None:
    """Joins lists, unless they may stay, and leaves out and counts other nested values."""
    count = 0
    for row, cell in enumerate(column):
        is_list = isinstance(cell, list)
        if isinstance(cell, dict) or (is_list and any(isinstance(v, dict | list) for v in cell)):
            if not (lists and is_list):
                column[row] = None
                count += 1
        elif is_list and not lists:
            column[row] = cells.joined(cell)
    if count:
        cells.add_nested(name, count)


def reject_duplicates(path: Path, location: str, columns: Sequence[str]) -> None:
    """Raises DataError if names occur twice."""
    duplicates = [name for name, count in Counter(columns).items() if count > 1]
    if duplicates:
        names = ", ".join(map(repr, duplicates))
        raise DataError(f"{path}: {location} names columns twice: {names}.")

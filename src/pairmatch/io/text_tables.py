"""Tables in text files: CSV and JSON Lines."""

from __future__ import annotations

import csv
import io
import re
from array import array
from threading import Lock
from typing import Any

from pairmatch.io.cells import Cells
from pairmatch.io.encodings import decode_text
from pairmatch.io.files import parse_json

# The limit of the csv module belongs to the process
_LIMIT_LOCK = Lock()
#: Separators of columns, and what messages call them.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_QUOTED = re.compile('"[^"]*"')


def read_csv(cells: Cells, content: bytes) -> None:
    """Reads the rows of a CSV file, whose columns are separated by `,`, `;`, tabs or `|`.

    Raises:
        DataError: Two columns with different cells have one name.
    """
    table = cells.table
    text, cells.encoding = decode_text(cells.path, content)
    separator, skipped = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    start = 1  # the line on which the next row starts: quoted cells may span several lines
    rows: list[list[str]] = []
    numbers = array("q")
    header: list[str] = []
    names: list[str] = []
    with _LIMIT_LOCK:
        limit = csv.field_size_limit(min(len(text) + 1, 2**31 - 1))
        try:
            for _ in range(skipped):
                next(reader)
            header = next(reader, [])
            names = cells.names(header, [f"line {skipped + 1}"] * len(header))
            width = max((number for number, name in enumerate(names, 1) if name), default=0)
            start = reader.line_num + 1
            for row in reader:
                if not any(cell.strip() for cell in row):
                    pass  # a blank line
                elif _fits(row, len(names), width):
                    rows.append(row)
                    numbers.append(start)
                else:
                    table.lost_row(
                        cells.place(f"line {start}"),
                        f"has {len(row)} cells, the header has {len(names)}. Put quotes around "
                        f"texts that contain {_SEPARATORS.get(separator, repr(separator))}.",
                    )
                start = reader.line_num + 1
        except csv.Error as error:
            location = cells.place(f"line {start} and after")
            table.lost_row(location, f"cannot be read as CSV: {error}.", stops=True)
        finally:
            csv.field_size_limit(limit)
    columns: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        column = [row[number] if number < len(row) else "" for row in rows]
        if name:
            cells.put(columns, name, column, f"line {skipped + 1}")
        else:
            cells.add_unnamed(header[number], number + 1, column)
    if numbers:
        table.separators.add(separator)
    cells.add_columns(columns, "line", numbers)


def _separator(text: str) -> tuple[str, int]:
    """The separator of columns, and the number of lines before the header.

    It is the most frequent one in the header, or the one in the note of Excel, `sep=;`.
    """
    line = text[: text.find("\n") + 1 or len(text)].strip("\r\n")
    note = re.fullmatch("sep=(.)", line.strip(" "), re.IGNORECASE)
    if note:
        return note[1], 1
    outside = _QUOTED.sub("", line)
    return max(_SEPARATORS, key=outside.count), 0


def _fits(row: list[str], columns: int, width: int) -> bool:
    """Whether a row has the cells of the header.

    Args:
        row: Its cells.
        columns: Number of columns of the header.
        width: Number of the last column with a name: blank cells after it say nothing, and neither
            does their absence.
    """
    return len(row) >= width and not any(cell.strip() for cell in row[columns:])


def read_json_lines(cells: Cells, content: bytes, *, lists: bool) -> None:
    """Reads the rows of a JSON Lines file.

    Args:
        cells: Receives the cells.
        content: Content of the file.
        lists: Whether all values may be lists.
    """
    table = cells.table
    text, cells.encoding = decode_text(cells.path, content)
    first: dict[str, str] = {}  # where each key occurs first
    rows: list[dict[str, Any]] = []
    numbers = array("q")
    for number, line in enumerate(text.split("\n"), 1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            table.lost_row(cells.place(place), f"not valid JSON ({error}).")
            continue
        if not isinstance(row, dict):
            table.lost_row(cells.place(place), "not a JSON object.")
            continue
        for key in row:
            first.setdefault(key, place)
        rows.append(row)
        numbers.append(number)
    columns: dict[str, list[Any]] = {}
    names = cells.names(list(first), list(first.values()))
    for position, (key, name) in enumerate(zip(first, names, strict=True), 1):
        column = [row.get(key) for row in rows]
        if not name:
            cells.add_unnamed(key, position, column)
            continue
        if not cells.is_exact(name):
            _flatten(cells, name, column, lists=lists)
        if name in columns:  # keys that differ only in spaces or their normal form
            column = [
                new if old is None else old for old, new in zip(columns[name], column, strict=True)
            ]
        columns[name] = column
    cells.add_columns(columns, "line", numbers)


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

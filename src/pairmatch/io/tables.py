"""Tables from CSV, Parquet and JSON Lines files: rows, their locations, and all problems."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.errors import DataError, suggestion

SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")
_UNDECODED = re.compile("[\udc80-\udcff]")  # `surrogateescape` maps invalid UTF-8 bytes to these


@dataclass(slots=True)
class Table:
    """Rows of a file, and the problems found so far.

    Attributes:
        path: Path to the file.
        columns: Column names, in order.
        rows: One mapping per row; blank cells, nulls and NaN are left out.
        locations: Location of each row in the file, such as `line 3`.
        problems: Messages about problems, in the order in which they were found.
        is_complete: Whether `rows` holds every row; False if a row could not be read.
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_complete: bool = True

    def add(self, row: dict[str, Any], location: str) -> None:
        """Adds a row without its blank cells."""
        # Only NaN differs from itself
        self.rows.append(
            {key: value for key, value in row.items() if value not in (None, "") and value == value}
        )
        self.locations.append(location)

    def problem(self, row: int, column: str, text: str) -> None:
        """Records a problem of one cell."""
        self.problems.append(f"{self.path.name} {self.locations[row]}, column {column}: {text}")

    def lost_row(self, location: str, text: str) -> None:
        """Records a row that cannot be read."""
        self.problems.append(f"{self.path.name} {location}{text}")
        self.is_complete = False

    def require(self, columns: Iterable[str]) -> None:
        """Records a problem for each missing column, unless the file is empty."""
        if not self.columns and not self.rows:
            return
        for column in columns:
            if column not in self.columns:
                hint = suggestion(column, self.columns)
                self.problems.append(f"{self.path.name}: there is no column {column!r}.{hint}")

    def error(self) -> DataError:
        """An error with all problems of the file."""
        return DataError(f"{self.path}: {len(self.problems)} problems:", self.problems)


def read_table(path: Path, *, lists: bool = False) -> Table:
    """Reads a file in the format of its extension.

    Args:
        path: Path to a `.csv`, `.parquet`, `.jsonl` or `.ndjson` file.
        lists: Whether values in JSON Lines may be lists; other nested values are always a problem.

    Raises:
        DataError: The file cannot be read in the format of its extension.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: the file name must end in {', '.join(SUFFIXES)}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    if not content:
        raise DataError(f"{path}: the file is empty.")
    if suffix == ".parquet":
        table = _read_parquet(path, content)
    elif suffix == ".csv":
        table = _read_csv(path, _decode(path, content))
    else:
        table = _read_json_lines(path, _decode(path, content), lists)
    if not table.rows and not table.problems:
        table.problems.append(f"{path.name}: the file has no rows.")
    return table


def _decode(path: Path, content: bytes) -> str:
    """Text of a file; invalid UTF-8 bytes stay marked, so that `_checked` can locate them."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: UTF-16. {_conversion_hint(path, 'UTF-16')}")
    text = content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path}: line {line} contains a NUL byte: the file is damaged, or is UTF-16 instead "
            "of UTF-8."
        )
    return text


def _conversion_hint(path: Path, encoding: str) -> str:
    return (
        "Save the file as UTF-8, for example with: "
        f"iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}-utf8{path.suffix}"
    )


def _checked(table: Table, location: str, column: str, cell: Any) -> Any:
    """The cell; invalid UTF-8 bytes are recorded as a problem and written as `\\xe9`."""
    invalid = _UNDECODED.search(cell) if isinstance(cell, str) else None
    if invalid is None:
        return cell
    byte = ord(invalid[0]) - 0xDC00
    table.problems.append(
        f"{table.path.name} {location}, column {column}: not UTF-8 (byte {byte:#04x}). "
        + _conversion_hint(table.path, "WINDOWS-1252")
    )
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_csv(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = Table(path, [])
    start = 1  # the line on which the next row starts: quoted cells may span several lines
    try:
        table.columns = _csv_header(table, next(reader, []))
        start = reader.line_num + 1
        for cells in reader:
            _add_csv_row(table, f"line {start}", cells)
            start = reader.line_num + 1
    except csv.Error as error:
        table.lost_row(f"line {start}", f" and after cannot be read as CSV: {error}.")
    return table


def _csv_header(table: Table, cells: list[str]) -> list[str]:
    """Column names.

    Raises:
        DataError: The separator is not a comma, or names occur twice.
    """
    columns = [
        _checked(table, "line 1", str(number), cell.strip()) for number, cell in enumerate(cells, 1)
    ]
    if len(columns) == 1:
        for separator in ";\t|":
            if separator in columns[0]:
                raise DataError(
                    f"{table.path}: line 1 separates columns by {separator!r}. Save the file with "
                    "commas between them."
                )
    _reject_duplicates(table.path, "line 1", columns)
    return columns


def _add_csv_row(table: Table, location: str, cells: list[str]) -> None:
    if not any(cell.strip() for cell in cells):
        return
    names = itertools.chain(table.columns, itertools.repeat("beyond the last"))
    values = [
        _checked(table, location, column, cell.strip())
        for column, cell in zip(names, cells, strict=False)
    ]
    if len(values) != len(table.columns):
        table.lost_row(
            location,
            f": has {len(values)} cells, the header has {len(table.columns)}."
            " Put quotes around texts that contain commas.",
        )
        return
    table.add(dict(zip(table.columns, values, strict=True)), location)


def _read_json_lines(path: Path, text: str, lists: bool) -> Table:
    table = Table(path, [])
    columns: dict[str, None] = {}
    nested_types = (dict,) if lists else (dict, list)
    for number, line in enumerate(text.split("\n"), 1):
        location = f"line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            table.lost_row(location, f": not valid JSON ({error}).")
            continue
        if not isinstance(row, dict):
            table.lost_row(location, ": not a JSON object.")
            continue
        nested = [key for key, value in row.items() if isinstance(value, nested_types)]
        if nested:
            table.lost_row(location, f": nested values in {', '.join(nested)}.")
            continue
        columns.update(dict.fromkeys(row))
        cells = {
            key: _stripped(_checked(table, location, key, value)) for key, value in row.items()
        }
        table.add(cells, location)
    table.columns = list(columns)
    return table


def _read_parquet(path: Path, content: bytes) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        columns = file.schema_arrow.names
        nested = [
            column.name for column in file.schema_arrow if pyarrow.types.is_nested(column.type)
        ]
        is_flat = not nested and len(set(columns)) == len(columns)
        rows = file.read().to_pylist() if is_flat else []
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file, or a damaged one ({error}).") from error
    _reject_duplicates(path, "the schema", columns)
    table = Table(path, columns)
    if nested:
        table.problems.append(f"{path.name}: nested values in {', '.join(nested)}.")
    for number, row in enumerate(rows, 1):
        table.add({key: _stripped(value) for key, value in row.items()}, f"row {number}")
    return table


def _reject_duplicates(path: Path, location: str, columns: list[str]) -> None:
    duplicates = [name for name, count in Counter(columns).items() if count > 1]
    if duplicates:
        names = ", ".join(map(repr, duplicates))
        raise DataError(f"{path}: {location} names columns twice: {names}.")


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value

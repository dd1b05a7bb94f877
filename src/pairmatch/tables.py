"""Rows of a CSV, Parquet or JSON Lines file, each with its place in the file, and everything that is wrong with it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.errors import DataError, missing_extra

SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")


@dataclass(slots=True)
class Table:
    """Rows of a file.

    Attributes:
        path: The file.
        columns: Names, in order.
        rows: One mapping per row; blank cells, nulls and NaN are left out.
        places: Where each row stands, for example `line 3`.
        problems: What is wrong so far.
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, row: int, column: str, text: str) -> None:
        """Notes a problem of one cell."""
        self.problems.append(f"{self.path.name} {self.places[row]}, column {column}: {text}")

    def add(self, row: dict[str, Any], place: str) -> None:
        """Adds a row without its blank cells."""
        # NaN alone differs from itself
        self.rows.append({key: value for key, value in row.items() if value not in (None, "") and value == value})
        self.places.append(place)


def read_table(path: Path, *, lists: bool = False) -> Table:
    """Reads a file by its suffix.

    Args:
        path: The file.
        lists: JSON Lines may hold lists; they are nested values otherwise.

    Raises:
        DataError: The file cannot be read as what its suffix says.
        MissingExtraError: A Parquet file without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: a file of pairs or profiles ends in {', '.join(SUFFIXES)}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    if not content:
        raise DataError(f"{path}: the file is empty.")
    if suffix == ".parquet":
        return _parquet(path, content)
    table = _csv(path, _text(path, content)) if suffix == ".csv" else _json_lines(path, _text(path, content), lists)
    if not table.rows and not table.problems:
        table.problems.append(f"{path.name}: the file has no rows.")
    return table


def _text(path: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#04x}). Save the file as UTF-8, for example "
            f"with: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > fixed{path.suffix}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line} holds a NUL byte: the file is damaged, or UTF-16 rather than UTF-8.")
    return text


def _csv(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = Table(path, [])
    start = 1
    try:
        table.columns = [name.strip() for name in next(reader, [])]
        mark = next((mark for mark in ";\t|" if len(table.columns) == 1 and mark in table.columns[0]), None)
        if mark:
            raise DataError(f"{path}: line 1 separates columns by {mark!r}. Save the file with commas between them.")
        _refuse_twice(path, "line 1", table.columns)
        start = reader.line_num + 1
        for cells in reader:
            place, start = f"line {start}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(table.columns):
                table.problems.append(
                    f"{path.name} {place}: has {len(cells)} cells, the header has {len(table.columns)}."
                    " Put quotes around texts that hold commas."
                )
                continue
            table.add({key: cell.strip() for key, cell in zip(table.columns, cells, strict=True)}, place)
    except csv.Error as error:
        raise DataError(f"{path}: line {start} and after cannot be read as CSV: {error}.") from error
    return table


def _json_lines(path: Path, text: str, lists: bool) -> Table:
    table = Table(path, [])
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            table.problems.append(f"{path.name} line {number}: not valid JSON ({error}).")
            continue
        if not isinstance(row, dict):
            table.problems.append(f"{path.name} line {number}: not a JSON object.")
            continue
        nested = [key for key, value in row.items() if isinstance(value, dict if lists else dict | list)]
        if nested:
            table.problems.append(f"{path.name} line {number}: nested values in {', '.join(nested)}.")
            continue
        columns.update(dict.fromkeys(row))
        table.add({key: _stripped(value) for key, value in row.items()}, f"line {number}")
    table.columns = list(columns)
    return table


def _parquet(path: Path, content: bytes) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra(f"Reading {path}", "pyarrow", "parquet") from error
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        columns = file.schema_arrow.names
        nested = [column.name for column in file.schema_arrow if pyarrow.types.is_nested(column.type)]
        rows = file.read().to_pylist() if not nested and len(set(columns)) == len(columns) else []
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a Parquet file, or a damaged one ({error}).") from error
    _refuse_twice(path, "the schema", columns)
    table = Table(path, columns)
    if nested:
        table.problems.append(f"{path.name}: nested values in {', '.join(nested)}.")
        return table
    for number, row in enumerate(rows, 1):
        table.add({key: _stripped(value) for key, value in row.items()}, f"row {number}")
    if not table.rows:
        table.problems.append(f"{path.name}: the file has no rows.")
    return table


def _refuse_twice(path: Path, place: str, columns: list[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {place} names columns twice: {', '.join(map(repr, twice))}.")


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value

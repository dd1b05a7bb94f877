"""Rows of a CSV, Parquet or JSON Lines file, each with its place in the file, and everything that is wrong with it."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.errors import DataError

SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")
_UNDECODED = re.compile(
    "[\udc80-\udcff]"
)  # what `surrogateescape` makes of bytes that are not UTF-8


@dataclass(slots=True)
class Table:
    """Rows of a file.

    Attributes:
        path: The file.
        columns: Names, in order.
        rows: One mapping per row; blank cells, nulls and NaN are left out.
        places: Where each row stands, for example `line 3`.
        problems: What is wrong so far.
        is_whole: No row was lost to a problem.
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_whole: bool = True

    def lose(self, place: str, text: str) -> None:
        """Notes a row that cannot be taken in at all."""
        self.problems.append(f"{self.path.name} {place}{text}")
        self.is_whole = False

    def problem(self, row: int, column: str, text: str) -> None:
        """Notes a problem of one cell."""
        self.problems.append(f"{self.path.name} {self.places[row]}, column {column}: {text}")

    def add(self, row: dict[str, Any], place: str) -> None:
        """Adds a row without its blank cells."""
        # NaN alone differs from itself
        self.rows.append(
            {key: value for key, value in row.items() if value not in (None, "") and value == value}
        )
        self.places.append(place)


def read_table(path: Path, *, lists: bool = False) -> Table:
    """Reads a file by its suffix.

    Args:
        path: The file.
        lists: JSON Lines may hold lists; they are nested values otherwise.

    Raises:
        DataError: The file cannot be read as what its suffix says.
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
    table = (
        _csv(path, _text(path, content))
        if suffix == ".csv"
        else _json_lines(path, _text(path, content), lists)
    )
    if not table.rows and not table.problems:
        table.problems.append(f"{path.name}: the file has no rows.")
    return table


def _text(path: Path, content: bytes) -> str:
    """The text of a file.

    Bytes that are not UTF-8 stay recognisable, for `_decoded` to say in which cell they are.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: UTF-16. {_as_utf8(path, 'UTF-16')}")
    text = content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path}: line {line} holds a NUL byte: the file is damaged, or UTF-16 rather than UTF-8."
        )
    return text


def _as_utf8(path: Path, encoding: str) -> str:
    return (
        "Save the file as UTF-8, for example with: "
        f"iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}-utf8{path.suffix}"
    )


def _decoded(table: Table, place: str, column: str, cell: Any) -> Any:
    """The cell, with bytes that are not UTF-8 written out as `\\xe9` after they were noted as a problem."""
    bad = _UNDECODED.search(cell) if isinstance(cell, str) else None
    if bad is None:
        return cell
    byte = ord(bad[0]) - 0xDC00
    table.problems.append(
        f"{table.path.name} {place}, column {column}: not UTF-8 (byte {byte:#04x}). "
        + _as_utf8(table.path, "WINDOWS-1252")
    )
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _csv(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = Table(path, [])
    start = 1
    try:
        names = [name.strip() for name in next(reader, [])]
        table.columns = [
            _decoded(table, "line 1", str(number), name) for number, name in enumerate(names, 1)
        ]
        mark = next(
            (mark for mark in ";\t|" if len(table.columns) == 1 and mark in table.columns[0]), None
        )
        if mark:
            raise DataError(
                f"{path}: line 1 separates columns by {mark!r}. Save the file with commas between them."
            )
        _refuse_twice(path, "line 1", table.columns)
        start = reader.line_num + 1
        for found in reader:
            place, start = f"line {start}", reader.line_num + 1
            if not any(cell.strip() for cell in found):
                continue
            named = itertools.zip_longest(
                table.columns[: len(found)], found, fillvalue="beyond the last"
            )
            cells = [_decoded(table, place, column, cell.strip()) for column, cell in named]
            if len(cells) != len(table.columns):
                table.lose(
                    place,
                    f": has {len(cells)} cells, the header has {len(table.columns)}."
                    " Put quotes around texts that hold commas.",
                )
                continue
            table.add(dict(zip(table.columns, cells, strict=True)), place)
    except csv.Error as error:
        table.lose(f"line {start}", f" and after cannot be read as CSV: {error}.")
    return table


def _json_lines(path: Path, text: str, lists: bool) -> Table:
    table = Table(path, [])
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            table.lose(place, f": not valid JSON ({error}).")
            continue
        if not isinstance(row, dict):
            table.lose(place, ": not a JSON object.")
            continue
        nested = [
            key for key, value in row.items() if isinstance(value, dict if lists else dict | list)
        ]
        if nested:
            table.lose(place, f": nested values in {', '.join(nested)}.")
            continue
        columns.update(dict.fromkeys(row))
        table.add(
            {key: _stripped(_decoded(table, place, key, value)) for key, value in row.items()},
            place,
        )
    table.columns = list(columns)
    return table


def _parquet(path: Path, content: bytes) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        columns = file.schema_arrow.names
        nested = [
            column.name for column in file.schema_arrow if pyarrow.types.is_nested(column.type)
        ]
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

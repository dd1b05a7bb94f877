"""Tables in Parquet files: the declared types hold."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmatch.core.errors import DataError
from pairmatch.io.cells import Cells, Unreadable
from pairmatch.io.text_tables import reject_duplicates

_FRACTION = re.compile(r"\.0+(?=$|Z)")
_SECONDS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def read_parquet(cells: Cells, content: bytes) -> None:
    """Reads the rows of a Parquet file.

    Raises:
        DataError: The file is not Parquet, is damaged, or names columns twice.
    """
    table = cells.table
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        schema = file.schema_arrow
        nested = [column.name for column in schema if pa.types.is_nested(column.type)]
        data = None if nested else file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{table.path}: not a Parquet file, or a damaged one ({error}).") from error
    names = [
        cells.name(column, "the schema", number) for number, column in enumerate(schema.names, 1)
    ]
    table.columns = [name for name in names if name]
    reject_duplicates(table.path, "the schema", table.columns)
    if data is None:
        table.problems.append(f"{table.path.name}: nested values in {', '.join(nested)}.")
        return
    columns = []
    for number, (name, column) in enumerate(zip(names, data.columns, strict=True), 1):
        if name:
            columns.append(_values(column))
        else:
            cells.add_unnamed(schema.names[number - 1], number, _values(column))
    for number, row in enumerate(zip(*columns, strict=True), 1):
        cells.add_row(f"row {number}", zip(table.columns, row, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Text, numbers, bools and None; `Unreadable` for each value that has no such form."""
    return [value for chunk in column.chunks for value in _chunk_values(chunk)]


def _chunk_values(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return _texts(array.cast(pa.large_binary()))
    if pa.types.is_string(kind):
        return _texts(array.cast(pa.binary()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_other_binary(kind):
        return _texts(array)
    if pa.types.is_decimal(kind):
        number = int if kind.scale <= 0 else float
        return [None if value is None else number(value) for value in array.to_pylist()]
    if pa.types.is_duration(kind):
        unit = _SECONDS[kind.unit]
        counts = array.cast(pa.int64()).to_pylist()
        return [None if count is None else count / unit for count in counts]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _times(array)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        return list(array.to_pylist())
    if pa.types.is_floating(kind):
        return [None if value is None else float(value) for value in array.to_pylist()]
    if str(kind) == "extension<arrow.uuid>":
        return [None if value is None else str(value) for value in array.to_pylist()]
    unknown = Unreadable(f"values of the type {kind} cannot be read; convert the column to text.")
    return [unknown if is_valid else None for is_valid in array.is_valid().to_pylist()]


def _is_other_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind))


def _texts(array: pa.Array) -> list[str | None]:
    """Bytes as UTF-8; others are kept as lone surrogates."""
    return [
        None if value is None else value.decode("utf-8", "surrogateescape")
        for value in array.to_pylist()
    ]


def _times(array: pa.Array) -> list[Any]:
    """Dates and times as `2024-05-01 18:30:00`, those with a time zone in UTC, with `+00:00`."""
    kind = array.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    texts = array.cast(pa.string()).to_pylist()
    return [None if text is None else _time(text) for text in texts]


def _time(text: str) -> str | Unreadable:
    if text.startswith(("<", "-")):
        return Unreadable("the date is out of range (years 0 to 9999).")
    text = _FRACTION.sub("", text)
    return f"{text[:-1]}+00:00" if text.endswith("Z") else text

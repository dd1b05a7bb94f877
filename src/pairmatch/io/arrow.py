"""Tables of Arrow: Parquet files and data frames; the declared types hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import printable
from pairmatch.io.cells import Cells, Unreadable
from pairmatch.io.parts import location_of

_FRACTION = re.compile(r"\.0+(?=$|Z)")
_SECONDS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FRAMES = "pandas from 2.2, polars, Arrow, relations of DuckDB"


def read_parquet(cells: Cells, content: bytes) -> None:
    """Reads the columns of a Parquet file.

    Raises:
        DataError: The file is not Parquet, is damaged, or names columns twice.
    """
    try:
        data = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{location_of(cells.path)}: not a Parquet file, or a damaged one ({error})."
        ) from error
    _read_table(cells, data, "the schema")


def read_frame(cells: Cells, frame: object) -> None:
    """Reads the columns of a data frame.

    Raises:
        ConfigurationError: The frame has no Arrow interface.
        DataError: The frame cannot be converted, or names columns twice.
    """
    name = cells.table.path
    if not hasattr(frame, "__arrow_c_stream__"):
        hint = " Call .collect() first." if hasattr(frame, "collect") else ""
        raise ConfigurationError(
            f"`{name}` must be a table with the Arrow interface, `__arrow_c_stream__` ({_FRAMES}), "
            f"got {type(frame).__name__}.{hint}"
        )
    _reject_objects(name, frame)
    try:
        data = pa.RecordBatchReader.from_stream(frame).read_all()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{name}: the {type(frame).__name__} cannot be converted to Arrow ({error}). Give each "
            "column one type, for example with astype(str)."
        ) from error
    _read_table(cells, data, "the frame")


def _reject_objects(name: Path, frame: object) -> None:
    """Rejects columns of Python objects, which polars exports as addresses in memory."""
    schema = getattr(frame, "schema", None)
    if not isinstance(schema, Mapping):
        return
    columns = [column for column, kind in schema.items() if str(kind) == "Object"]
    if columns:
        names = ", ".join(repr(printable(str(column))) for column in columns)
        raise DataError(
            f"{name}: Python objects cannot be read, which are in {names}. Make them text, for "
            f"example with pl.Series({columns[0]!r}, [str(cell) for cell in column])."
        )


def _read_table(cells: Cells, data: pa.Table, location: str) -> None:
    data = _with_range_index(data)
    names = cells.names(data.column_names, [location] * len(data.column_names))
    columns: dict[str, list[Any]] = {}
    nested = []
    for number, (name, column) in enumerate(zip(names, data.columns, strict=True), 1):
        if not name:
            cells.add_unnamed(data.column_names[number - 1], number, _values(column))
        elif not pa.types.is_nested(column.type):
            cells.put(columns, name, _values(column), location)
        elif cells.is_path(name) and _is_list(column.type):
            cells.put(columns, name, _lists(column), location)
        elif not cells.is_exact(name) and _is_list(column.type):
            texts = [None if values is None else cells.joined(values) for values in _lists(column)]
            cells.put(columns, name, texts, location)
        elif cells.is_exact(name):
            nested.append(f"{name} ({column.type})")
        else:
            cells.add_nested(name, len(column) - column.null_count)
    if nested:
        raise DataError(f"{location_of(cells.path)}: nested values in {', '.join(nested)}.")
    cells.add_columns(columns, "row", range(1, len(data) + 1))


def _with_range_index(data: pa.Table) -> pa.Table:
    """Adds a named index of pandas that is a range of numbers, which only the metadata hold.

    Ids of 1, 2, 3, … become such an index with `set_index("id")`, from pandas 3.
    """
    try:
        described = data.schema.pandas_metadata or {}
        for index in described.get("index_columns", ()):
            if not isinstance(index, dict) or index["kind"] != "range" or not index["name"]:
                continue
            numbers = range(index["start"], index["stop"], index["step"])
            if len(numbers) == len(data) and index["name"] not in data.column_names:
                data = data.append_column(index["name"], pa.array(numbers, pa.int64()))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return data  # metadata that pandas did not write
    return data


def _is_list(kind: pa.DataType) -> bool:
    is_list = (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
    return is_list and not pa.types.is_nested(kind.value_type)


def _lists(column: pa.ChunkedArray) -> list[Any]:
    """Lists of values, and None."""
    lists: list[Any] = []
    for chunk in column.chunks:
        for row in range(len(chunk)):
            cell = chunk[row]
            lists.append(_chunk_values(cell.values) if cell.is_valid else None)
    return lists


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Text, numbers, bools and None; `Unreadable` for each value that has no such form."""
    return [value for chunk in column.chunks for value in _chunk_values(chunk)]


def _chunk_values(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(array)
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return _texts(array.cast(pa.large_binary()))
    if pa.types.is_string(kind):
        return _texts(array.cast(pa.binary()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _texts(array)
    if _is_other_binary(kind):
        return _texts(array.cast(pa.large_binary()))
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


def _of_dictionary(array: pa.DictionaryArray) -> list[Any]:
    """Each distinct value is converted once."""
    distinct = [*_chunk_values(array.dictionary), None]
    rows = pc.fill_null(array.indices.cast(pa.int64()), len(distinct) - 1)
    return [distinct[row] for row in rows.to_numpy().tolist()]


def _texts(array: pa.Array) -> list[Any]:
    """Bytes as UTF-8; others are kept as lone surrogates."""
    if len(array) > 1:
        encoded = array.dictionary_encode()
        if 2 * len(encoded.dictionary) <= len(array):  # as of ids in a log: faster
            return _of_dictionary(encoded)
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

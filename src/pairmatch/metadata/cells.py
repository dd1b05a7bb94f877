"""Cells of exported metadata: values of attributes, and people's corrections."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pairmatch.io.spreadsheets import unguarded
from pairmatch.io.tables import Table

_ERASED = "-"


def parse_cell(schema: type[BaseModel], name: str, cell: Any) -> Any:
    """The first reading of a cell that is valid for the attribute; the cell itself if none is."""
    adapter = cell_adapter(schema.model_fields[name])
    for value in _readings(cell):
        try:
            return adapter.validate_python(value)
        except ValidationError:
            continue
    return cell


def cell_adapter(info: FieldInfo) -> TypeAdapter[Any]:
    """Validates values of one attribute, including its limits."""
    kind: Any = info.annotation
    return TypeAdapter(Annotated[kind, *info.metadata] if info.metadata else kind)


def read_correction(table: Table, row: int, name: str, cell: Any, adapter: TypeAdapter[Any]) -> Any:
    """The JSON value of a correction; None after a problem."""
    if cell == _ERASED:
        try:
            return adapter.validate_python(None)
        except ValidationError:
            table.problem(row, name, "this attribute is required, so it cannot be erased.")
            return None
    cell = plain_cell(table, cell)
    problem = ""
    for value in _readings(cell):
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json")
        except ValidationError as error:
            problem = problem or error.errors()[0]["msg"]
    table.problem(row, name, f"{str(cell)[:60]!r}: {problem}.")
    return None


def _readings(cell: Any) -> list[Any]:
    """Possible values of a cell: the cell itself, then its JSON value or its text."""
    if not isinstance(cell, str):
        return [cell, str(cell)]
    try:
        return [cell, json.loads(cell)]
    except ValueError:
        return [cell]


def read_corrections(table: Table, row: int, cell: Any) -> dict[str, Any]:
    """The corrections in a cell of an exported file."""
    try:
        values = json.loads(cell)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        table.problem(row, "corrections", "not a JSON object of attributes.")
        return {}
    return values


def format_cell(value: Any) -> str | float | None:
    """A value as a cell of a CSV file: text and numbers unchanged, other values as JSON."""
    is_plain = value is None or (
        isinstance(value, str | int | float) and not isinstance(value, bool)
    )
    return value if is_plain else format_json(value)


def plain_cell(table: Table, cell: Any) -> Any:
    """A cell of a CSV file without the `'` that keeps spreadsheets from running it."""
    is_guarded = isinstance(cell, str) and table.path.suffix.lower() == ".csv"
    return unguarded(cell) if is_guarded else cell


def format_json(value: Any) -> str:
    """A value as JSON, without escapes of non-ASCII characters."""
    return json.dumps(value, ensure_ascii=False)

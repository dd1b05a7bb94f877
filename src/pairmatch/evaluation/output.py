"""Rows of results as files, and as plain-text tables."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ConfigurationError
from pairmatch.io.replacing import replace_file
from pairmatch.io.spreadsheets import csv_bytes


def save_rows(rows: Iterator[dict[str, Any]], path: str | Path) -> Path:
    """Writes rows as CSV or Parquet, by the file's extension, readable only by their owner.

    Raises:
        ConfigurationError: The extension is unknown.
    """
    target = Path(path)
    if target.suffix == ".csv":
        listed = list(rows)
        replace_file(target, csv_bytes(list(listed[0]), listed), private=True)
    elif target.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
        replace_file(target, buffer.getvalue(), private=True)
    else:
        raise ConfigurationError(f"`save` writes .csv or .parquet, got {target.name!r}.")
    return target


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a plain-text table: the first column aligned left, all other columns right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return lines

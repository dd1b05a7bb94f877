"""Rows of results as files."""

from __future__ import annotations

import io
from collections.abc import Iterator
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

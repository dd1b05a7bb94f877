"""CSV files that people open in spreadsheets: texts of others are never formulas.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break. A text of that
kind is written with `'` before it, which spreadsheets take for "this is text". Numbers are written
as they are. A text that begins with `'` and such a character gets another `'`, so that every text
comes back as it was.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_GUARDED = re.compile(r"''*[=+\-@\t\r\n＝＋－＠]")


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text of a cell that `guarded` wrote."""
    return cell[1:] if _GUARDED.match(cell) else cell


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A CSV file in UTF-8: texts are guarded, other values are written as they are.

    Lone surrogates, which UTF-8 cannot hold, are written as in `\\udcff`.

    Args:
        columns: Names of the columns.
        rows: Values by column; None and missing values are empty cells.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(guarded(name) for name in columns)
    for row in rows:
        cells = [row.get(name) for name in columns]
        writer.writerow(guarded(cell) if isinstance(cell, str) else cell for cell in cells)
    return text.getvalue().encode(errors="backslashreplace")

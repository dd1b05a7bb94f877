"""The folder of a sweep: finished rows, the table of all queries, and the report."""

from __future__ import annotations

import re
from pathlib import Path

from pairmatch.io.outputs import claim_folder, foreign_names

ROWS = "lines"
QUERIES = "queries.csv"
REPORTS = ("report.html", "report.json")
#: Name of the mark of such folders.
KIND = "sweep"
_ROW = re.compile(r"[0-9a-f]{64}\.npz|\.[0-9a-f]{64}\.npz\.[a-z0-9_]{8}")


def claim(folder: Path) -> None:
    """Checks that a folder is new, empty or a sweep's, creates it and marks it.

    Raises:
        ConfigurationError: The folder holds something else, or cannot be written.
    """
    claim_folder(folder, KIND, is_earlier=is_earlier_sweep)


def is_earlier_sweep(folder: Path) -> bool:
    """Whether a folder without a mark is one that a sweep of an earlier version wrote."""
    rows = folder / ROWS
    return (
        rows.is_dir()
        and {ROWS, QUERIES, *REPORTS}.issuperset(foreign_names(folder))
        and all(_ROW.fullmatch(item.name) for item in rows.iterdir())
    )

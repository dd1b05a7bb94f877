"""Bad rows of tables: stop at them, or go on without them and list what was left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from pairmatch.core.errors import ConfigurationError, DataError, unknown_name
from pairmatch.core.text import counted, printable
from pairmatch.io.problems import Problem, grouped
from pairmatch.io.replacing import replace_file
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
OnBadRow = Literal["stop", "skip"]
ON_BAD_ROW = ("stop", "skip")
#: Name of the list of what was left out, in the output folder of a command.
FILE = "skipped.csv"
_SKIP = "To go on without these rows and cells: on_bad_row='skip' (--on-bad-row skip)."


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or a cell that was left out.

    Attributes:
        file: Name of the file, or of the data frame.
        location: Where it is, such as `line 3` or `row 17`.
        column: Name of the column; blank if the whole row could not be read.
        id: Id of the person; blank if it is not known.
        reason: What is wrong.
    """

    file: str
    location: str
    column: str
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Loss:
    """How much of the data was lost.

    Attributes:
        what: What is counted, in the plural.
        lost: Number of those that were left out.
        total: Number of all.
    """

    what: str
    lost: int
    total: int


@dataclass(frozen=True, slots=True)
class BadRows:
    """What happens at rows that cannot be used.

    Attributes:
        mode: `stop` raises an error with all problems; `skip` goes on without them.
        most_skipped: Share of people, and of pairs, above which `skip` stops too.
    """

    mode: OnBadRow = "stop"
    most_skipped: float = 0.05

    def __post_init__(self) -> None:
        if self.mode not in ON_BAD_ROW:
            raise ConfigurationError(
                unknown_name("value of `on_bad_row` (--on-bad-row)", str(self.mode), ON_BAD_ROW)
            )
        if not (isinstance(self.most_skipped, int | float) and 0 <= self.most_skipped <= 1):
            raise ConfigurationError(
                "`most_skipped` (--most-skipped) must be a share from 0 to 1, got "
                f"{self.most_skipped!r}."
            )

    @property
    def are_skipped(self) -> bool:
        """Whether to go on without them."""
        return self.mode == "skip"

    def settle(self, tables: Sequence[Table], losses: Iterable[Loss]) -> tuple[Skipped, ...]:
        """What was left out; it is logged with counts.

        Args:
            tables: The tables, with their problems.
            losses: How much was lost.

        Raises:
            DataError: There are problems, and they are not skipped: they concern whole files, or
                too much is lost.
        """
        if not any(table.problems for table in tables):
            return ()
        is_of_file = any(problem.stops for table in tables for problem in table.problems)
        if not self.are_skipped or is_of_file:
            raise error_of(tables, hint="" if is_of_file else _SKIP)
        losses = list(losses)
        for loss in losses:
            if loss.lost > self.most_skipped * loss.total:
                raise DataError(
                    f"{tables[0].location}: {loss.lost:,} of {loss.total:,} {loss.what} cannot be "
                    f"used, more than {self.most_skipped:.1%} (most_skipped=, --most-skipped):",
                    _messages(tables),
                )
        counts = " and ".join(f"{loss.lost:,} of {loss.total:,} {loss.what}" for loss in losses)
        reasons = [printable(reason) for table in tables for reason in _reasons(table)]
        lines = "\n  - ".join([f"left out {counts}:", *reasons])
        _log.warning("%s: %s", printable(str(tables[0].path)), lines)
        return tuple(_skipped(table, problem) for table in tables for problem in table.problems)


def error_of(tables: Sequence[Table], *, hint: str = "") -> DataError:
    """An error with all problems of several tables, which ends with a hint."""
    lines = _messages(tables)
    return DataError(f"{tables[0].location}: {counted(len(lines), 'problem')}:", lines, hint)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Writes a CSV file with what was left out, readable only by its owner."""
    names = [field.name for field in fields(Skipped)]
    rows = (dict(zip(names, astuple(entry), strict=True)) for entry in skipped)
    replace_file(path, csv_bytes(names, rows), private=True)


def _messages(tables: Sequence[Table]) -> list[str]:
    return [line for table in tables for line in table.messages()]


def _reasons(table: Table) -> Iterable[str]:
    """Each kind of problem with its number and its first row."""
    for alike in grouped(table.problems):
        first = alike[0]
        file, place = table.place(first.location)
        column = f", column {first.column}" if first.column else ""
        rows = "row" if len(alike) == 1 else "rows, the first"
        yield f"{len(alike):,} {rows}: {file} {place}{column}: {first.text}"


def _skipped(table: Table, problem: Problem) -> Skipped:
    return Skipped(
        *table.place(problem.location),
        problem.column,
        "" if problem.row is None else _person(table, problem.row, problem.column),
        problem.text,
    )


def _person(table: Table, row: int, column: str) -> str:
    """Id of the person that a cell is about; blank if it is about a pair."""
    suffix = column[-2:] if column.endswith(("_a", "_b")) else ""
    cells = table.cells.get(f"id{suffix}")
    return "" if cells is None or cells[row] is None else str(cells[row])

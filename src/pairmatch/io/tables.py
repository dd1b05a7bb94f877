"""Tables from CSV, Parquet and JSON Lines files: rows, their locations, and all problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmatch.core.errors import ConfigurationError, DataError, suggestion, unknown_name
from pairmatch.io.cells import Cells
from pairmatch.io.files import read_file
from pairmatch.io.text_tables import read_csv, read_json_lines

SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")

#: Words that stand for a missing value, exactly as programs write them: pandas' list, `\\N` of
#: databases, `-`, and the errors of spreadsheets.
MISSING_WORDS = frozenset(
    {
        *("NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NAN", "NaN", "nan", "-NaN"),
        *("-nan", "NaT", "NULL", "Null", "null", "(null)", "None", "-", "\\N"),
        *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
        *("#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"),
    }
)
_MOST_BYTES = 4 << 30
_MOST_LISTED = 3


@dataclass(slots=True)
class Table:
    """Rows of a file, and the problems found so far.

    Attributes:
        path: Path to the file.
        columns: Column names, in order; columns without a name are left out.
        rows: One mapping per row; blank cells, nulls, NaN and missing-value words are left out.
        locations: Location of each row in the file, such as `line 3`.
        problems: Messages about problems, in the order in which they were found.
        is_complete: Whether `rows` holds every row; False if a row could not be read.
        is_typed: Whether the file states the types of its cells, as Parquet and JSON do.
        missing: How often each missing-value word occurs, by column.
        missing_ids: The missing-value words in columns of ids, by row and column.
        reported_ids: Cells with an id that `problems` reports, by row and column.
    """

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_complete: bool = True
    is_typed: bool = False
    missing: dict[str, Counter[str]] = field(default_factory=dict)
    missing_ids: dict[tuple[int, str], str] = field(default_factory=dict)
    reported_ids: set[tuple[int, str]] = field(default_factory=set)

    def add(self, row: dict[str, Any], location: str) -> None:
        """Adds a row."""
        self.rows.append(row)
        self.locations.append(location)

    def problem(self, row: int, column: str, text: str) -> None:
        """Records a problem of one cell."""
        self.problems += self.cell_problems(column, [(self.locations[row], text)])

    def cell_problems(self, column: str, cells: Sequence[tuple[str, str]]) -> list[str]:
        """Messages about a problem that several cells of a column have; one, if they are many.

        Args:
            column: Name of the column.
            cells: Location and description of the problem of each cell.
        """
        listed = cells if len(cells) <= _MOST_LISTED else cells[:1]
        more = f" and {len(cells) - 1:,} more rows" if len(listed) < len(cells) else ""
        return [
            f"{self.path.name} {location}{more}, column {column}: {text}"
            for location, text in listed
        ]

    def lost_row(self, location: str, text: str) -> None:
        """Records a row that cannot be read."""
        self.problems.append(f"{self.path.name} {location}{text}")
        self.is_complete = False

    def require(self, columns: Iterable[str]) -> None:
        """Records a problem for each missing column, unless the file is empty."""
        if not self.columns and not self.rows:
            return
        for column in columns:
            if column not in self.columns:
                hint = suggestion(column, self.columns)
                self.problems.append(f"{self.path.name}: there is no column {column!r}.{hint}")

    def rows_without_id(self, column: str) -> dict[int, str]:
        """Messages about rows without an id, by row; many equal ones are one message."""
        rows: dict[str, list[int]] = {}
        for row, cells in enumerate(self.rows):
            if column not in cells and (row, column) not in self.reported_ids:
                rows.setdefault(self._no_id(row, column), []).append(row)
        return {
            row: message
            for text, blank in rows.items()
            for row, message in zip(
                blank,
                self.cell_problems(column, [(self.locations[row], text) for row in blank]),
                strict=False,
            )
        }

    def _no_id(self, row: int, column: str) -> str:
        word = self.missing_ids.get((row, column))
        if word is None:
            return "the id is blank."
        return (
            f"the id is missing: {word!r} stands for a missing value. If it is an id, keep it with "
            f"keep_words=[{word!r}] (--keep-word {word})."
        )

    def error(self) -> DataError:
        """An error with all problems of the file."""
        return DataError(f"{self.path}: {len(self.problems)} problems:", self.problems)


def read_table(
    path: Path,
    *,
    ids: Collection[str] = (),
    names: Collection[str] = (),
    paths: Collection[str] = (),
    lists: bool = False,
    missing_words: Collection[str] = MISSING_WORDS,
) -> Table:
    """Reads a file in the format of its extension.

    What is left out or replaced is logged once, with counts.

    Args:
        path: Path to a `.csv`, `.parquet`, `.jsonl` or `.ndjson` file.
        ids: Columns that hold ids. They are read as text in Unicode normal form C, whole numbers
            without a fraction; a cell that is not valid Unicode is a problem.
        names: Columns that hold names of groups, which are read as ids are.
        paths: Columns that hold paths to files; they stay as they are, but must be valid Unicode.
        lists: Whether values in JSON Lines may be lists; other nested values are always a problem.
        missing_words: Texts that count as a missing value, after spaces around them are removed.

    Raises:
        DataError: The file cannot be read in the format of its extension.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: the file name must end in {', '.join(SUFFIXES)}.")
    try:
        content = read_file(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    if not content:
        raise DataError(f"{path}: the file is empty.")
    table = Table(path, [], is_typed=suffix != ".csv")
    cells = Cells(table, {*ids, *names}, paths, frozenset(missing_words) | {""}, required=ids)
    if suffix == ".parquet":
        from pairmatch.io.parquet import read_parquet

        read_parquet(cells, content)
    elif suffix == ".csv":
        read_csv(cells, content)
    else:
        read_json_lines(cells, content, lists=lists)
    cells.finish()
    if not table.rows and not table.problems:
        table.problems.append(f"{path.name}: the file has no rows.")
    return table


def words_for_missing(keep_words: Collection[str]) -> Collection[str]:
    """Words that stand for a missing value, without those that are kept as values.

    Raises:
        ConfigurationError: A kept word is not one of them.
    """
    kept = {keep_words} if isinstance(keep_words, str) else set(keep_words)
    unknown = sorted(kept - MISSING_WORDS)
    if unknown:
        raise ConfigurationError(
            " ".join(
                unknown_name("word in `keep_words` (--keep-word)", word, MISSING_WORDS)
                for word in unknown
            )
        )
    return MISSING_WORDS - kept

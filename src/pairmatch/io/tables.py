"""Tables from files and data frames: columns of cells, their locations, and all problems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from pairmatch.core.errors import ConfigurationError, DataError, suggestion, unknown_name
from pairmatch.core.text import counted
from pairmatch.io.cells import Cells
from pairmatch.io.locations import Locations
from pairmatch.io.parts import PartFile, find_parts, location_of
from pairmatch.io.problems import Problem, messages
from pairmatch.io.text_tables import read_csv, read_json_lines

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


_UNTYPED = (".csv", ".tsv")
_MOST_COLUMNS = 20  # that a message lists


@dataclass(frozen=True, slots=True)
class Frame:
    """A table in memory: pandas, polars, Arrow, or a relation of DuckDB.

    Attributes:
        name: What messages call it.
        data: An object with the Arrow interface, `__arrow_c_stream__`.
    """

    name: str
    data: object


#: A file, folder or pattern; several of them; or a table in memory.
TableSource = Path | tuple[Path, ...] | Frame


class Rows(Sequence[dict[str, Any]]):
    """The rows of a table: one mapping per row, without missing cells, made when it is asked for.

    Args:
        columns: The cells of each column; None where one is missing.
        count: Number of rows.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        self._columns = columns
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, row: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(row, slice):
            return [self[position] for position in range(*row.indices(self._count))]
        if row >= self._count:
            raise IndexError(row)
        cells = ((name, values[row]) for name, values in self._columns.items())
        return {name: cell for name, cell in cells if cell is not None}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(self._count))


@dataclass(slots=True)
class Table:
    """Columns of a file or data frame, and the problems found so far.

    Attributes:
        path: Path to the file, or to the folder of several; of a data frame, its name.
        columns: Column names, in order; columns without a name are left out.
        cells: The cells of each column, by name: None for blank cells, nulls, NaN, missing-value
            words and cells with a problem.
        locations: Location of each row, such as `line 3`, or `part-2.csv line 3` of several files.
        problems: Problems, in the order in which they were found.
        sources: Names of the columns in the file, before they were renamed.
        is_complete: Whether the table holds every row; False if a row could not be read.
        is_typed: Whether the file states the types of its cells, as Parquet and JSON do.
        separators: Separators of the columns of its CSV files.
        files: Names of its files if there are several, relative to `path`.
        missing: How often each missing-value word occurs, by column.
        missing_ids: The missing-value words in columns of ids, by row and column.
        reported: Cells that could not be read and are in `problems`, by row and column.
    """

    path: Path
    columns: list[str] = field(default_factory=list)
    cells: dict[str, list[Any]] = field(default_factory=dict)
    locations: Locations = field(default_factory=Locations)
    problems: list[Problem] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    is_complete: bool = True
    is_typed: bool = False
    separators: set[str] = field(default_factory=set)
    files: frozenset[str] = frozenset()
    missing: dict[str, Counter[str]] = field(default_factory=dict)
    missing_ids: dict[tuple[int, str], str] = field(default_factory=dict)
    reported: set[tuple[int, str]] = field(default_factory=set)

    @property
    def rows(self) -> Rows:
        """One mapping per row, without missing cells."""
        return Rows(self.cells, len(self.locations))

    def column(self, name: str) -> Sequence[Any]:
        """The cells of a column; all are None if there is no such column."""
        cells = self.cells.get(name)
        return [None] * len(self.locations) if cells is None else cells

    def problem(self, row: int, column: str, text: str, *, kind: str = "") -> None:
        """Records a problem of one cell."""
        self.problems.append(Problem(text, self.locations[row], column, kind, row))

    def lost_row(self, location: str, text: str, *, stops: bool = False) -> None:
        """Records a row that cannot be read."""
        self.problems.append(Problem(text, location, stops=stops))
        self.is_complete = False

    def problem_of_file(self, text: str) -> None:
        """Records a problem that no single row has."""
        self.problems.append(Problem(text, stops=True))

    def require(self, columns: Iterable[str]) -> None:
        """Records a problem for each missing column, unless the file is empty."""
        if not self.columns and not self.locations:
            return
        is_first = True
        for column in columns:
            if column not in self.columns:
                hint = suggestion(column, self.columns)
                if is_first and not hint:
                    hint = self._columns_hint(column)
                    is_first = False
                self.problem_of_file(f"there is no column {column!r}.{hint}")

    def _columns_hint(self, column: str) -> str:
        """Which columns there are, and how one of them is read as the missing one."""
        if not self.sources:
            return ""
        shown = ", ".join(map(repr, self.sources[:_MOST_COLUMNS]))
        more = ", …" * (len(self.sources) > _MOST_COLUMNS)
        return (
            f" The columns are {shown}{more}. To read one of them as {column!r}: columns= "
            f"(--column NAME={column})."
        )

    def report_missing_id(self, row: int, column: str) -> None:
        """Records that a row has no id, unless its cell has another problem."""
        if (row, column) in self.reported:
            return
        word = self.missing_ids.get((row, column))
        if word is None:
            self.problem(row, column, "the id is blank.")
            return
        self.problem(
            row,
            column,
            f"the id is missing: {word!r} stands for a missing value. If it is an id, keep it with "
            f"keep_words=[{word!r}] (--keep-word {word}).",
        )

    @property
    def name(self) -> str:
        """Name of the file for messages; of several, that of the folder, with a slash."""
        if not self.files:
            return self.path.name
        return self.location if self.location.endswith("//") else f"{self.path.name}/"

    @property
    def location(self) -> str:
        """Path to the table, or its URL, for messages."""
        return location_of(self.path)

    def place(self, location: str) -> tuple[str, str]:
        """Name of the file, and the place in it, of a location."""
        for space in re.finditer(" ", location) if self.files else ():
            if location[: space.start()] in self.files:
                file = f"{self.name}{location[: space.start()]}"
                return file, location[space.end() :]
        return self.name, location

    def messages(self) -> list[str]:
        """The problems in lines; many equal ones are one line."""
        return messages(self.name, self.problems)

    def error(self) -> DataError:
        """An error with all problems of the table."""
        lines = self.messages()
        return DataError(f"{self.location}: {counted(len(lines), 'problem')}:", lines)


def read_table(
    source: TableSource,
    *,
    ids: Collection[str] = (),
    names: Collection[str] = (),
    paths: Collection[str] = (),
    lists: bool = False,
    missing_words: Collection[str] = MISSING_WORDS,
    renamed: Mapping[str, str] | None = None,
    known: Collection[str] = (),
) -> Table:
    """Reads a data frame, or files in the format of their extension.

    What is left out or replaced is logged once, with counts.

    Args:
        source: Path to a `.csv`, `.tsv`, `.parquet`, `.jsonl` or `.ndjson` file, to a folder of
            them, a pattern, or a list of these; or a data frame.
        ids: Columns that hold ids. They are read as text in Unicode normal form C, whole numbers
            without a fraction; a cell that is not valid Unicode is a problem.
        names: Columns that hold names of groups, which are read as ids are.
        paths: Columns that hold paths to files, or lists of paths, which become tuples. Paths stay
            as they are, but must be valid Unicode.
        lists: Whether values in JSON Lines stay lists. Otherwise, lists become texts, separated by
            `;`. Other nested values are left out, but are problems in the columns above.
        missing_words: Texts that count as a missing value, after spaces around them are removed.
        renamed: Names of columns by their names in the file; others keep their names.
        known: Names of columns that are read in capital letters, too.

    Raises:
        ConfigurationError: The frame has no Arrow interface.
        DataError: The source cannot be read, or two columns have one name.
    """
    parts: list[PartFile] = []
    if isinstance(source, Frame):
        table = Table(Path(source.name), is_typed=True)
    else:
        path, parts = find_parts(source)
        files = frozenset(part.name for part in parts if part.name)
        table = Table(path, is_typed=parts[0].format not in _UNTYPED, files=files)
    cells = Cells(
        table,
        {*ids, *names},
        paths,
        frozenset(missing_words) | {""},
        required=ids,
        renamed=renamed or {},
        known={*ids, *names, *paths, *known},
    )
    if isinstance(source, Frame):
        from pairmatch.io.arrow import read_frame

        read_frame(cells, source.data)
    for part in parts:
        _read_part(cells, part, lists=lists)
    cells.finish()
    if not table.locations and not table.problems:
        what = "frame has" if isinstance(source, Frame) else "files have" if files else "file has"
        table.problem_of_file(f"the {what} no rows.")
    return table


def _read_part(cells: Cells, part: PartFile, *, lists: bool) -> None:
    content = part.read()
    if not content and part.name:
        return
    if not content:
        raise DataError(f"{location_of(part.path)}: the file is empty.")
    cells.start(part)
    if part.format == ".parquet":
        from pairmatch.io.arrow import read_parquet

        read_parquet(cells, content)
    elif part.format in _UNTYPED:
        read_csv(cells, content)
    else:
        read_json_lines(cells, content, lists=lists)
    cells.end()


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

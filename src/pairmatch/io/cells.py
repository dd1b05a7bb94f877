"""Cells of tables: one rule for missing values, text and ids, whatever the format of the file."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairmatch.core.errors import DataError
from pairmatch.core.text import has_surrogates, printable, replace_surrogates
from pairmatch.io.encodings import UNDECODED, conversion_hint, undecoded
from pairmatch.io.headers import Header
from pairmatch.io.parts import PartFile, location_of, partition_value
from pairmatch.io.problems import Problem

if TYPE_CHECKING:
    from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
_MOST_CHARACTERS = 10_000_000
_LARGEST = int(sys.float_info.max)
_WHOLE = 2.0**53  # floats beyond it have no last digit
_SHOWN_WORDS = 5


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A cell whose value is not text, a number or a bool, and why."""

    reason: str


class Cells:
    """Cleans the cells of a table, and counts what is left out or replaced.

    Args:
        table: Table that receives the columns.
        ids: Columns that hold ids and names.
        paths: Columns that hold paths, or lists of paths.
        missing_words: Texts that count as a missing value.
        required: Columns in which the missing-value words are kept for error messages.
        renamed: Names of columns by their names in the file; others keep their names.
        known: Names that are read in capital letters, too.
    """

    def __init__(
        self,
        table: Table,
        ids: Collection[str],
        paths: Collection[str],
        missing_words: Collection[str],
        required: Collection[str],
        renamed: Mapping[str, str],
        known: Collection[str] = (),
    ) -> None:
        self.table = table
        #: Path to the file that is read.
        self.path = table.path
        #: Encoding that the file evidently has, if it is not UTF-8.
        self.encoding: str | None = None
        self._part = PartFile(table.path)
        self._header = Header(table.sources, renamed, known)
        self._ids = ids
        self._paths = paths
        self._missing_words = missing_words
        self._required = required
        self._texts: dict[str, dict[str, str]] = {}  # what texts without a problem are, by column
        self._repeated: Counter[str] = Counter()  # columns that occur twice, with equal cells
        self._nested: Counter[str] = Counter()  # number of values, by column
        self._replaced: dict[str, list[str]] = {}  # locations, by column
        self._infinite: Counter[str] = Counter()

    def start(self, part: PartFile) -> None:
        """Starts with the next file of the table."""
        self._part = part
        self.path = part.path
        self.encoding = None

    def place(self, place: str) -> str:
        """A place in the file, with the name of the file if the table has several."""
        return f"{self._part.name} {place}" if self._part.name else place

    def names(self, columns: Sequence[str], places: Sequence[str]) -> list[str]:
        """Names of the columns of a file; blank for those that have none.

        Args:
            columns: Names in the file.
            places: Where each one is.

        Raises:
            DataError: Two columns have one name, and one of the two was renamed.
        """
        decoded = []
        for number, (column, place) in enumerate(zip(columns, places, strict=True), 1):
            if has_surrogates(column):
                problem = Problem(
                    undecoded(column, self.path, self.encoding),
                    *(self.place(place), str(number), "encoding"),
                    stops=True,
                )
                self.table.problems.append(problem)
            decoded.append(printable(column) if has_surrogates(column) else column)
        return self._header.names(decoded, self.path)

    def put(
        self, columns: dict[str, Any], name: str, cells: Sequence[Any], location: str = "line 1"
    ) -> None:
        """Adds a column to others; one that repeats another is left out.

        Raises:
            DataError: Another column has the name, and other cells.
        """
        if name not in columns:
            columns[name] = cells
        elif columns[name] == cells:
            self._repeated[name] += 1
        else:
            raise DataError(f"{location_of(self.path)}: {location} names columns twice: {name!r}.")

    def add_columns(
        self, columns: Mapping[str, Sequence[Any]], unit: str, numbers: Sequence[int]
    ) -> None:
        """Adds the rows of a file to the table.

        Args:
            columns: The cells of each named column, as the file has them.
            unit: What is numbered: `line` or `row`.
            numbers: Number of each row.
        """
        table = self.table
        if self._part.name and not numbers:
            return  # an empty part
        columns = {**columns, **self._partition(columns, len(numbers))}
        start = len(table.locations)
        table.locations.add(f"{self.place(unit)} ", numbers)
        self._header.columns[self._part.name] = list(columns)
        for column, cells in columns.items():
            known = table.cells.setdefault(column, [None] * start)
            self._clean_column(column, cells, known)
        for column in table.cells.keys() - columns.keys():
            table.cells[column].extend([None] * len(numbers))
        table.columns = list(table.cells)

    def _partition(self, columns: Collection[str], rows: int) -> dict[str, list[Any]]:
        """Columns that the names of folders state, unless the file has them itself."""
        keys = list(self._part.partition)
        names = self.names(keys, ["the folder"] * len(keys))
        return {
            name: [partition_value(text, is_typed=self.table.is_typed)] * rows
            for name, text in zip(names, self._part.partition.values(), strict=True)
            if name and name not in columns
        }

    def add_unnamed(self, name: str, number: int, cells: Iterable[Any]) -> None:
        """Counts the values in a column without a name."""
        filled = sum(
            cell.strip() not in self._missing_words if isinstance(cell, str) else cell is not None
            for cell in cells
        )
        self._header.unnamed[name.strip() or f"column {number}"] += filled

    def add_nested(self, column: str, count: int) -> None:
        """Counts the values of a column that is left out because they are nested."""
        self._nested[column] += count

    def joined(self, values: Iterable[Any]) -> str | None:
        """A list of texts and numbers as one text, separated by `;`; None if it has no values."""
        texts = (str(value).strip() for value in values if value is not None)
        return ";".join(text for text in texts if text not in self._missing_words) or None

    def is_exact(self, column: str) -> bool:
        """Whether every cell of a column matters: ids, names and paths."""
        return column in self._ids or column in self._paths

    def is_path(self, column: str) -> bool:
        """Whether a column holds paths, or lists of paths."""
        return column in self._paths

    def _clean_column(self, column: str, cells: Iterable[Any], values: list[Any]) -> None:
        """Appends the values of a column; None where a cell is missing or has a problem."""
        texts = self._texts.setdefault(column, {})  # most texts occur several times
        for row, cell in enumerate(cells, len(values)):
            if cell is None:
                values.append(None)
                continue
            is_text = type(cell) is str
            value = texts.get(cell) if is_text else None
            if value is None:
                value = self._clean(column, cell, row)
                if is_text and value is not None and not has_surrogates(cell):
                    texts[cell] = value
            values.append(value)

    def _clean(self, column: str, cell: Any, row: int) -> Any:
        """The value of a cell; None if it is missing or has a problem."""
        if isinstance(cell, str):
            return self._text(column, cell.strip(), row)
        if isinstance(cell, float) and not math.isfinite(cell):
            self._infinite[column] += cell == cell
            return None
        if isinstance(cell, Unreadable):
            self._fault(column, row, cell.reason)
            return None
        if isinstance(cell, list) and column in self._paths:
            return self._list_of_paths(column, cell, row)
        if isinstance(cell, list | dict) and self.is_exact(column):
            self._fault(column, row, "the value is nested.")
            return None
        if column in self._ids:
            return self._id(column, cell, row)
        if isinstance(cell, int) and abs(cell) > _LARGEST:
            self._fault(column, row, "the number is too large.")
            return None
        return cell

    def _list_of_paths(self, column: str, cell: list[Any], row: int) -> tuple[str, ...] | None:
        others = [item for item in cell if item is not None and not isinstance(item, str)]
        if others:
            self._fault(column, row, f"a list of photos holds paths, got {str(others[0])[:60]!r}.")
            return None
        paths = (self._text(column, item.strip(), row) for item in cell if item is not None)
        return tuple(path for path in paths if path is not None) or None

    def _text(self, column: str, text: str, row: int) -> str | None:
        if text in self._missing_words:
            if text:
                self.table.missing.setdefault(column, Counter())[text] += 1
                if column in self._required:
                    self.table.missing_ids[row, column] = text
            return None
        if len(text) > _MOST_CHARACTERS:
            limit = f"the text has {len(text):,} characters, more than {_MOST_CHARACTERS:,}."
            self._fault(column, row, limit)
            return None
        if text.isascii():
            return text
        if has_surrogates(text):
            if self.is_exact(column) or (self.encoding and UNDECODED.search(text)):
                is_path = column in self._paths
                reason = undecoded(text, self.path, self.encoding, is_path=is_path)
                self._fault(column, row, reason, kind="encoding")
                return text
            self._replaced.setdefault(column, []).append(self.table.locations[row])
            text = replace_surrogates(text)
        return text if column in self._paths else unicodedata.normalize("NFC", text)

    def _id(self, column: str, cell: Any, row: int) -> str | None:
        """An id, or the name of a group, that the file states as a number."""
        fault = ""
        is_required = column in self._required
        if isinstance(cell, float):
            if not cell.is_integer():
                if not is_required:
                    return str(cell)
                fault = f"an id must be text or a whole number, got {cell!r}."
            elif abs(cell) > _WHOLE:
                fault = (
                    f"the id {cell!r} is a fractional number, which has lost its last digits. Save "
                    "ids as text or as whole numbers."
                )
            cell = int(cell)
        elif isinstance(cell, bool) and is_required:
            fault = f"an id must be text or a whole number, got {cell!r}."
        if fault:
            self._fault(column, row, fault, kind="an id must be text or a whole number")
            return None
        return str(cell)

    def _fault(self, column: str, row: int, text: str, *, kind: str = "") -> None:
        """Records a problem of a cell; one of a file in another encoding is a problem of it all."""
        stops = kind == "encoding" and self.encoding is not None
        location = self.table.locations[row]
        self.table.problems.append(Problem(text, location, column, kind, row, stops))
        self.table.reported.add((row, column))

    def end(self) -> None:
        """Ends a file: records that it has another encoding, unless a cell did."""
        if self.encoding and not any(p.kind == "encoding" for p in self.table.problems):
            self.table.problem_of_file(
                f"{self.place('not UTF-8')}. {conversion_hint(self.path, self.encoding)}"
            )

    def finish(self) -> None:
        """Records the columns that files lack, and logs what was left out or replaced."""
        if self._part.format not in (".jsonl", ".ndjson"):  # which leave out missing values
            for problem in self._header.lacking():
                self.table.problem_of_file(problem)
        for note in self._notes():
            _log.warning("%s: %s", printable(self.table.location), note)

    def _notes(self) -> Iterator[str]:
        if self._repeated:
            columns = ", ".join(map(printable, self._repeated))
            yield f"columns that repeat another one are ignored: {columns}."
        if self._header.unnamed:
            columns = ", ".join(
                f"{printable(name)} ({count:,} value{'s' * (count > 1)})" if count else name
                for name, count in self._header.unnamed.items()
            )
            yield f"columns without a name are ignored: {columns}."
        if self._nested:
            columns = ", ".join(
                f"{printable(name)} ({count:,} value{'s' * (count > 1)})"
                for name, count in self._nested.items()
            )
            yield f"nested values are ignored: {columns}."
        if self.table.missing:
            columns = "; ".join(
                f"{printable(column)}: {_counts(words)}"
                for column, words in self.table.missing.items()
            )
            word = next(iter(next(iter(self.table.missing.values()))))
            yield (
                f"cells that stand for a missing value: {columns}. To keep a word as a value: "
                f"keep_words=[{word!r}] (--keep-word {shlex.quote(word)})."
            )
        for column, locations in self._replaced.items():
            yield (
                f"{printable(column)}: {_cells(len(locations))} with characters that are not valid "
                f"Unicode, which were replaced by U+FFFD; first in {locations[0]}."
            )
        for column, count in self._infinite.items():
            if count:
                yield f"{printable(column)}: {_cells(count)} with an infinite number, left out."


def _counts(words: Counter[str]) -> str:
    shown = ", ".join(
        f"{_cells(count)} {word!r}" for word, count in words.most_common(_SHOWN_WORDS)
    )
    rest = sum(words.values()) - sum(count for _, count in words.most_common(_SHOWN_WORDS))
    return f"{shown}, {rest:,} others" if rest else shown


def _cells(count: int) -> str:
    return f"{count:,} cell" + "s" * (count > 1)

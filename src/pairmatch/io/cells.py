"""Cells of tables: one rule for missing values, text and ids, whatever the format of the file."""

from __future__ import annotations

import logging
import math
import re
import shlex
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairmatch.core.errors import DataError
from pairmatch.core.text import has_surrogates, printable, replace_surrogates
from pairmatch.io.encodings import UNDECODED, conversion_hint
from pairmatch.io.problems import Problem

if TYPE_CHECKING:
    from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
#: Names that programs give to columns without one: pandas' index and blank headers, readr's `...1`;
#: with `_a` or `_b` once two tables were merged into pairs.
_UNNAMED = re.compile(r"|(Unnamed: \d+(\.\d+)?(_level_\d+)?|__index_level_\d+__|\.\.\.\d+)(_[ab])?")
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
    """

    def __init__(
        self,
        table: Table,
        ids: Collection[str],
        paths: Collection[str],
        missing_words: Collection[str],
        required: Collection[str],
        renamed: Mapping[str, str],
    ) -> None:
        self.table = table
        #: Encoding that the file evidently has, if it is not UTF-8.
        self.encoding: str | None = None
        self._ids = ids
        self._paths = paths
        self._missing_words = missing_words
        self._required = required
        self._renamed = renamed
        self._unnamed: Counter[str] = Counter()  # number of values, by name
        self._nested: Counter[str] = Counter()  # number of values, by column
        self._replaced: dict[str, list[str]] = {}  # locations, by column
        self._infinite: Counter[str] = Counter()

    def name(self, column: str, location: str, number: int) -> str:
        """A column's name; blank if it has none.

        Raises:
            DataError: Another column has the name, and one of the two was renamed.
        """
        if has_surrogates(column):
            text = self._undecoded("", column)
            self.table.problems.append(Problem(text, location, str(number), "encoding", stops=True))
            column = printable(column)
        source = unicodedata.normalize("NFC", column.strip())
        if source not in self._renamed and _UNNAMED.fullmatch(source):
            self._unnamed[source or f"column {number}"] += 0
            return ""
        name = self._renamed.get(source, source)
        for other in self.table.sources if self._renamed else ():
            if source != other and name == self._renamed.get(other, other):
                raise DataError(
                    f"{self.table.path}: the columns {other!r} and {source!r} would both be "
                    f"{name!r}: give one of them another name with columns= (--column)."
                )
        if source not in self.table.sources:
            self.table.sources.append(source)
        return name

    def add_columns(self, columns: Mapping[str, Iterable[Any]], locations: list[str]) -> None:
        """Fills the table.

        Args:
            columns: The cells of each named column, as the file has them.
            locations: Location of each row.
        """
        self.table.columns = list(columns)
        self.table.locations = locations
        for column, cells in columns.items():
            self.table.cells[column] = self._cleaned(column, cells)

    def add_unnamed(self, name: str, number: int, cells: Iterable[Any]) -> None:
        """Counts the values in a column without a name."""
        filled = sum(
            cell.strip() not in self._missing_words if isinstance(cell, str) else cell is not None
            for cell in cells
        )
        self._unnamed[name.strip() or f"column {number}"] += filled

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

    def _cleaned(self, column: str, cells: Iterable[Any]) -> list[Any]:
        """The values of a column; None where a cell is missing or has a problem."""
        texts: dict[str, str] = {}  # what cells without a problem are; most occur several times
        values: list[Any] = []
        for row, cell in enumerate(cells):
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
        return values

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
                self._fault(column, row, self._undecoded(column, text), kind="encoding")
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

    def _undecoded(self, column: str, text: str) -> str:
        """The problem of text that is not valid Unicode."""
        invalid = UNDECODED.search(text)
        if invalid is None and column in self._paths:
            return f"{printable(text)[:60]!r} cannot be opened (surrogates not allowed)."
        if invalid is None:
            return f"{printable(text)[:60]!r} is not valid Unicode (half a surrogate pair)."
        hint = (
            "Correct this cell."
            if self.encoding is None
            else conversion_hint(self.table.path, self.encoding)
        )
        return f"not UTF-8 (byte {ord(invalid[0]) - 0xDC00:#04x}). {hint}"

    def _fault(self, column: str, row: int, text: str, *, kind: str = "") -> None:
        """Records a problem of a cell; one of a file in another encoding is a problem of it all."""
        stops = kind == "encoding" and self.encoding is not None
        location = self.table.locations[row]
        self.table.problems.append(Problem(text, location, column, kind, row, stops))
        self.table.reported.add((row, column))

    def finish(self) -> None:
        """Logs what was left out or replaced."""
        if self.encoding and not any(p.kind == "encoding" for p in self.table.problems):
            self.table.problem_of_file(
                f"not UTF-8. {conversion_hint(self.table.path, self.encoding)}"
            )
        for note in self._notes():
            _log.warning("%s: %s", printable(str(self.table.path)), note)

    def _notes(self) -> Iterator[str]:
        if self._unnamed:
            columns = ", ".join(
                f"{printable(name)} ({count:,} value{'s' * (count > 1)})" if count else name
                for name, count in self._unnamed.items()
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

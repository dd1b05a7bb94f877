"""Cells of tables: one rule for missing values, text and ids, whatever the format of the file."""

from __future__ import annotations

import logging
import math
import re
import shlex
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairmatch.core.text import has_surrogates, printable, replace_surrogates
from pairmatch.io.encodings import UNDECODED, conversion_hint

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
        table: Table that receives the rows.
        ids: Columns that hold ids and names.
        paths: Columns that hold paths.
        missing_words: Texts that count as a missing value.
        required: Columns in which the missing-value words are kept for error messages.
    """

    def __init__(
        self,
        table: Table,
        ids: Collection[str],
        paths: Collection[str],
        missing_words: Collection[str],
        required: Collection[str],
    ) -> None:
        self.table = table
        #: Encoding that the file evidently has, if it is not UTF-8.
        self.encoding: str | None = None
        self._ids = ids
        self._paths = paths
        self._missing_words = missing_words
        self._required = required
        self._unnamed: Counter[str] = Counter()  # number of values, by name
        # Locations and problems, by column and kind of problem
        self._faults: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._replaced: dict[str, list[str]] = {}  # locations, by column
        self._infinite: Counter[str] = Counter()

    def name(self, column: str, location: str, number: int) -> str:
        """A column's name; blank if it has none."""
        if has_surrogates(column):
            self._fault("encoding", str(number), location, self._undecoded("", column))
            column = printable(column)
        name = unicodedata.normalize("NFC", column.strip())
        if _UNNAMED.fullmatch(name):
            self._unnamed[name or f"column {number}"] += 0
            return ""
        return name

    def add_row(self, location: str, cells: Iterable[tuple[str, Any]]) -> None:
        """Adds a row to the table: pairs of a column's name and its cell."""
        self.table.add(self.checked(location, cells), location)

    def checked(self, location: str, cells: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """The values of a row by column; problems are recorded."""
        values = ((column, self._clean(column, cell, location)) for column, cell in cells)
        return {column: value for column, value in values if value is not None}

    def add_unnamed(self, name: str, number: int, cells: Iterable[Any]) -> None:
        """Counts the values in a column without a name."""
        filled = sum(
            cell.strip() not in self._missing_words if isinstance(cell, str) else cell is not None
            for cell in cells
        )
        self._unnamed[name.strip() or f"column {number}"] += filled

    def _clean(self, column: str, cell: Any, location: str) -> Any:
        """The value of a cell; None if it is missing or has a problem."""
        if cell is None:
            return None
        if isinstance(cell, str):
            return self._text(column, cell.strip(), location)
        if isinstance(cell, float) and not math.isfinite(cell):
            self._infinite[column] += cell == cell
            return None
        if isinstance(cell, Unreadable):
            self._fault("value", column, location, cell.reason)
            return None
        if column in self._ids:
            return self._id(column, cell, location)
        if isinstance(cell, int) and abs(cell) > _LARGEST:
            self._fault("value", column, location, "the number is too large.")
            return None
        return cell

    def _text(self, column: str, text: str, location: str) -> str | None:
        if text in self._missing_words:
            if text:
                self.table.missing.setdefault(column, Counter())[text] += 1
                if column in self._required:
                    self.table.missing_ids[len(self.table.rows), column] = text
            return None
        if len(text) > _MOST_CHARACTERS:
            limit = f"the text has {len(text):,} characters, more than {_MOST_CHARACTERS:,}."
            self._fault("length", column, location, limit)
            return None
        if text.isascii():
            return text
        if has_surrogates(text):
            is_exact = column in self._ids or column in self._paths
            if is_exact or (self.encoding and UNDECODED.search(text)):
                self._fault("encoding", column, location, self._undecoded(column, text))
                return text
            self._replaced.setdefault(column, []).append(location)
            text = replace_surrogates(text)
        return text if column in self._paths else unicodedata.normalize("NFC", text)

    def _id(self, column: str, cell: Any, location: str) -> str | None:
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
            self._fault("id", column, location, fault)
            self.table.reported_ids.add((len(self.table.rows), column))
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

    def _fault(self, kind: str, column: str, location: str, text: str) -> None:
        self._faults.setdefault((column, kind), []).append((location, text))

    def finish(self) -> None:
        """Records the problems, and logs what was left out or replaced."""
        for (column, _), faults in self._faults.items():
            self.table.problems += self.table.cell_problems(column, faults)
        for note in self._notes():
            _log.warning("%s: %s", printable(str(self.table.path)), note)

    def _notes(self) -> Iterator[str]:
        if self._unnamed:
            columns = ", ".join(
                f"{printable(name)} ({count:,} value{'s' * (count > 1)})" if count else name
                for name, count in self._unnamed.items()
            )
            yield f"columns without a name are ignored: {columns}."
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

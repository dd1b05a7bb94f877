"""Pairs from the rows of a table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any, Literal, TypeVar

from pairmatch.core.errors import id_hint, suggestion
from pairmatch.core.text import printable
from pairmatch.core.types import Pair, outcome_of
from pairmatch.data.answers import (
    contradiction,
    latest,
    parse_like,
    parse_outcome,
    parse_time,
    repeated_note,
)
from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: Columns about the pair, besides the ids.
COLUMNS = ("outcome", "a_likes", "b_likes", "time", "pool", "group")
_CUTOFF = 0.85  # similarity from which on a column seems to be misspelled


class PairRows:
    """Turns rows into pairs, and records inconsistent ones in the table.

    Args:
        table: Table with the columns `id_a` and `id_b`, and optionally `outcome`, `a_likes`,
            `b_likes`, `time`, `pool` and `group`.
        sides: 2, or 1 if a person may be a in one pair and b in another.

    Attributes:
        pairs: The pairs, in the order of their rows.
        lost: Rows without a usable pair.
    """

    def __init__(self, table: Table, sides: Literal[1, 2]) -> None:
        self.pairs: list[Pair] = []
        self.lost: set[int] = set()
        self._table = table
        self._sides = sides
        self._rows: list[int] = []  # of each pair
        self._repeated: dict[int, list[Pair]] = {}  # all entries of a pair, by its position
        self._has_likes = not {"a_likes", "b_likes"}.isdisjoint(table.columns)
        self._check_columns()
        self._add_pairs()
        self._settle_repeated()

    def _check_columns(self) -> None:
        """Records misspelled columns, without which all pairs would be matches; names the rest."""
        missing = [name for name in COLUMNS if name not in self._table.columns]
        missing += [name for name in ("text_a", "text_b") if name not in self._table.columns]
        ignored = []
        for column in self._table.columns:
            if column in COLUMNS:
                continue
            if column.endswith(("_a", "_b")):
                self._check_suffix(column, missing)
                continue
            spelled = column.replace("-", "_").replace(" ", "_")
            hint = suggestion(spelled, missing, cutoff=_CUTOFF)
            if hint:
                self._table.problem_of_file(
                    f"the column {column!r} is unknown.{hint} Rename it with columns= (--column)."
                )
            ignored.append(printable(column))
        if ignored:
            path = printable(self._table.location)
            _log.warning("%s: columns that are not read: %s.", path, ", ".join(ignored))

    def _check_suffix(self, column: str, missing: Sequence[str]) -> None:
        """Records a column such as `likes_a` that holds answers instead of an attribute."""
        hint = suggestion(f"{column[-1]}_{column[:-2]}", missing, cutoff=_CUTOFF)
        if not hint:
            return
        try:
            for cell in set(self._table.column(column)):
                parse_like(cell)
        except ValueError:
            return  # an attribute: what someone likes
        self._table.problem_of_file(
            f"the column {column!r} holds yes and no, but would be an attribute.{hint} Rename it "
            "with columns= (--column)."
        )

    def people(self) -> dict[str, None]:
        """Ids of all people that rows name, in order."""
        columns = (self._table.column(f"id_{side}") for side in "ab")
        ids = chain.from_iterable(zip(*columns, strict=True))
        return dict.fromkeys(filter(None, ids))

    def _add_pairs(self) -> None:
        """Adds the pairs of all rows without a problem."""
        outcomes = self._parsed("outcome", parse_outcome)
        a_likes = self._parsed("a_likes", parse_like)
        b_likes = self._parsed("b_likes", parse_like)
        times = self._parsed("time", parse_time)
        texts = (self._table.column(name) for name in ("id_a", "id_b", "group", "pool"))
        first: dict[tuple[str, str], int] = {}  # position of each pair, by its ids
        for row, (a, b, group, pool) in enumerate(zip(*texts, strict=True)):
            if a is None or b is None or a == b or row in self.lost:
                self._lose(row, a, b)
                continue
            likes = (a_likes[row], b_likes[row])
            outcome = outcomes[row]
            if outcome is None:
                outcome = outcome_of(*likes) if self._has_likes else "match"
            pair = Pair(
                a,
                b,
                outcome,
                group,
                a_likes=likes[0],
                b_likes=likes[1],
                time=times[row],
                pool=pool,
            )
            fault = contradiction(pair) if self._has_likes else ""
            if fault:
                self.lost.add(row)
                self._table.problem(row, "outcome", fault)
                continue
            key = (a, b) if self._sides == 2 or a < b else (b, a)
            position = first.setdefault(key, len(self.pairs))
            if position == len(self.pairs):
                self.pairs.append(pair)
                self._rows.append(row)
            else:
                self._repeat(position, row, pair)

    def _parsed(self, column: str, parse: Callable[[Any], T]) -> Sequence[T | None]:
        """The values of a column; None where a cell is missing, or is recorded as a problem."""
        if column not in self._table.cells:
            return self._table.column(column)
        parsed: dict[Any, T | None] = {None: None}
        values: list[T | None] = []
        for row, cell in enumerate(self._table.column(column)):
            if cell not in parsed:
                try:
                    parsed[cell] = parse(cell)
                except ValueError as error:
                    self.lost.add(row)
                    self._table.problem(row, column, str(error))
            values.append(parsed.get(cell))
        return values

    def _lose(self, row: int, a: str | None, b: str | None) -> None:
        """Records why the ids of a row make no pair."""
        self.lost.add(row)
        for column, person in (("id_a", a), ("id_b", b)):
            if person is None:
                self._table.report_missing_id(row, column)
        if a is not None and a == b:
            self._table.problem(row, "id_b", f"{a!r} is paired with itself.")

    def _repeat(self, position: int, row: int, pair: Pair) -> None:
        """Keeps a later entry of a pair that has times, and records one that has none."""
        entry = self.pairs[position]
        if pair.time is not None and entry.time is not None:
            self._repeated.setdefault(position, [entry]).append(pair)
            return
        self.lost.add(row)
        same = entry.outcome == pair.outcome
        fault = "is given twice" if same else f"is {entry.outcome!r} and {pair.outcome!r}"
        location = self._table.locations[self._rows[position]]
        self._table.problem(
            row, "id_a", f"the pair {pair.a!r}, {pair.b!r} {fault}, first in {location}."
        )

    def _settle_repeated(self) -> None:
        """Keeps the latest answers of pairs that are decided several times, and says how many."""
        for position, entries in self._repeated.items():
            self.pairs[position] = latest(entries)
        if self._repeated:
            _log.warning(
                "%s: %s",
                printable(self._table.location),
                repeated_note(self._repeated.values()),
            )

    def check_people(self, people: Collection[str], file: str) -> None:
        """Records ids that the profiles file does not hold; other types of ids are one problem."""
        unknown = [
            (row, column, person)
            for column in ("id_a", "id_b")
            for row, person in enumerate(self._table.column(column))
            if person is not None and person not in people
        ]
        if not unknown:
            return
        hint = id_hint({person: None for _, _, person in unknown}, people)
        if hint and len(unknown) >= len(self._table.locations):  # at least half of the cells
            self._table.problem_of_file(
                f"{len(unknown):,} cells have ids that are not in {file}.{hint}"
            )
            return
        for row, column, person in sorted(unknown):
            text = f"{person!r} is not in {file}.{hint}"
            self._table.problem(row, column, text, kind="unknown id")
            hint = ""

    def leave_out(self, people: Collection[str], unreadable: Collection[str]) -> None:
        """Drops the pairs of people that are not there.

        Args:
            people: Ids of the people that are there.
            unreadable: Ids of those that cannot be read; no problem of a pair names them yet.
        """
        for pair, row in zip(self.pairs, self._rows, strict=True):
            if pair.a in people and pair.b in people:
                continue
            self.lost.add(row)
            for column, person in (("id_a", pair.a), ("id_b", pair.b)):
                if person in unreadable:
                    self._table.problem(row, column, f"{person!r} was left out.")
        self._drop_lost()

    def check_sides(self, *, every_row: bool = False) -> None:
        """Records each person that is on both sides, and drops the pairs with the later side.

        Args:
            every_row: Whether to record all of these pairs, not only the first of each person.
        """
        sides = ({pair.a for pair in self.pairs}, {pair.b for pair in self.pairs})
        if self._sides == 1 or sides[0].isdisjoint(sides[1]):
            return
        first: dict[str, tuple[str, int]] = {}  # column and row of each person
        reported: set[str] = set()
        for pair, row in zip(self.pairs, self._rows, strict=True):
            for column, person in (("id_a", pair.a), ("id_b", pair.b)):
                first_column, first_row = first.setdefault(person, (column, row))
                if first_column == column:
                    continue
                self.lost.add(row)
                if every_row or person not in reported:
                    reported.add(person)
                    self._table.problem(
                        row,
                        column,
                        f"{person!r} is on both sides, first as {first_column} in "
                        f"{self._table.locations[first_row]}. Use sides=1 (--sides 1) if anyone "
                        "may match anyone, or give the two people different ids.",
                    )
        self._drop_lost()

    def report_unknown_outcomes(self) -> None:
        """Says how many outcomes are words for a missing value, which count as matches."""
        words = sum(self._table.missing.get("outcome", {}).values())
        if words and not self._has_likes:
            _log.warning(
                "%s: %d pairs without an outcome count as matches.",
                printable(self._table.location),
                words,
            )

    def _drop_lost(self) -> None:
        kept = [
            (pair, row)
            for pair, row in zip(self.pairs, self._rows, strict=True)
            if row not in self.lost
        ]
        self.pairs = [pair for pair, _ in kept]
        self._rows = [row for _, row in kept]

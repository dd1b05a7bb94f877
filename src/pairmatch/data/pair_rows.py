"""Pairs from the rows of a table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar, cast

from pairmatch.core.errors import id_hint, suggestion
from pairmatch.core.text import printable
from pairmatch.core.types import Outcome, Pair, outcome_of
from pairmatch.data.answers import (
    OUTCOMES,
    contradiction,
    latest,
    parse_like,
    parse_time,
    repeated_note,
)
from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
T = TypeVar("T")


class PairRows:
    """Turns rows into pairs, and records inconsistent ones in the table.

    Args:
        table: Table with the columns `id_a` and `id_b`, and optionally `outcome`, `a_likes`,
            `b_likes`, `time`, `pool` and `group`.
        sides: 2, or 1 if a person may be a in one pair and b in another.
    """

    def __init__(self, table: Table, sides: Literal[1, 2]) -> None:
        self.pairs: list[Pair] = []
        self._table = table
        self._sides = sides
        self._rows: list[int] = []  # of each pair
        self._first: dict[tuple[str, ...], int] = {}  # position of each pair, by its ids
        self._repeated: dict[int, list[Pair]] = {}  # all entries of a pair, by its position
        self._has_likes = not {"a_likes", "b_likes"}.isdisjoint(table.columns)

    def ids(self, row: int) -> dict[str, str]:
        """Ids of a row by side, `a` and `b`; empty if the cell is blank."""
        return {side: self._table.rows[row].get(f"id_{side}", "") for side in "ab"}

    def add(self, row: int, ids: Mapping[str, str]) -> None:
        """Adds the pair of a row, unless it has a problem."""
        problems = len(self._table.problems)
        cells = self._table.rows[row]
        outcome = cells.get("outcome")
        if outcome is not None:
            outcome = str(outcome).lower()
        if outcome not in (*OUTCOMES, None):
            self._table.problem(
                row,
                "outcome",
                f"{outcome!r} is neither 'match', 'rejected' nor 'open'."
                f"{suggestion(str(outcome), OUTCOMES)}",
            )
        a_likes = self._parsed(row, "a_likes", parse_like)
        b_likes = self._parsed(row, "b_likes", parse_like)
        time = self._parsed(row, "time", parse_time)
        if len(self._table.problems) > problems or not all(ids.values()):
            return
        if ids["a"] == ids["b"]:
            self._table.problem(row, "id_b", f"{ids['a']!r} is paired with itself.")
            return
        if outcome is None:
            outcome = outcome_of(a_likes, b_likes) if self._has_likes else "match"
        pair = Pair(
            ids["a"],
            ids["b"],
            cast(Outcome, outcome),
            cells.get("group"),
            a_likes=a_likes,
            b_likes=b_likes,
            time=time,
            pool=cells.get("pool"),
        )
        fault = contradiction(pair)
        if fault:
            self._table.problem(row, "outcome", fault)
        elif not self._is_duplicate(row, pair):
            self.pairs.append(pair)
            self._rows.append(row)

    def _parsed(self, row: int, column: str, parse: Callable[[Any], T]) -> T | None:
        """The value of a cell; None after a problem was recorded."""
        try:
            return parse(self._table.rows[row].get(column))
        except ValueError as error:
            self._table.problem(row, column, str(error))
            return None

    def _is_duplicate(self, row: int, pair: Pair) -> bool:
        key = (pair.a, pair.b) if self._sides == 2 else tuple(sorted((pair.a, pair.b)))
        position = self._first.setdefault(key, len(self.pairs))
        if position == len(self.pairs):
            return False
        if pair.time is not None and self.pairs[position].time is not None:
            self._repeated.setdefault(position, [self.pairs[position]]).append(pair)
            return True
        first = self.pairs[position].outcome
        fault = "is given twice" if first == pair.outcome else f"is {first!r} and {pair.outcome!r}"
        location = self._table.locations[self._rows[position]]
        self._table.problem(
            row, "id_a", f"the pair {pair.a!r}, {pair.b!r} {fault}, first in {location}."
        )
        return True

    def settle_repeated(self) -> None:
        """Keeps the latest answers of pairs that are decided several times, and says how many."""
        for position, entries in self._repeated.items():
            self.pairs[position] = latest(entries)
        if self._repeated:
            _log.warning(
                "%s: %s",
                printable(str(self._table.path)),
                repeated_note(self._repeated.values()),
            )

    def check_people(self, people: Collection[str], file: str) -> None:
        """Records ids that the profiles file does not hold."""
        cells = [
            (row, side, person)
            for row in range(len(self._table.rows))
            for side, person in self.ids(row).items()
            if person and person not in people
        ]
        hint = id_hint({person: None for _, _, person in cells}, people) if cells else ""
        if hint:
            self._table.problems.append(
                f"{self._table.path.name}: {len(cells):,} cells have ids that are not in {file}."
                f"{hint}"
            )
        for row, side, person in cells:
            self._table.problem(row, f"id_{side}", f"{person!r} is not in {file}.")

    def report_unknown_outcomes(self) -> None:
        """Says how many outcomes are words for a missing value, which count as matches."""
        words = sum(self._table.missing.get("outcome", {}).values())
        if words and not self._has_likes:
            _log.warning(
                "%s: %d pairs without an outcome count as matches.",
                printable(str(self._table.path)),
                words,
            )

    def check_sides(self) -> None:
        """Records each person that is on both sides, once."""
        if self._sides == 1:
            return
        first: dict[str, tuple[str, int]] = {}  # side and row of each person
        reported: set[str] = set()
        for pair, row in zip(self.pairs, self._rows, strict=True):
            for side, person in (("a", pair.a), ("b", pair.b)):
                first_side, first_row = first.setdefault(person, (side, row))
                if first_side == side or person in reported:
                    continue
                reported.add(person)
                self._table.problem(
                    row,
                    f"id_{side}",
                    f"{person!r} is on both sides, first as id_{first_side} in "
                    f"{self._table.locations[first_row]}. Use sides=1 (--sides 1) if anyone may "
                    "match anyone, or give the two people different ids.",
                )

"""Pairs from the rows of a table."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Literal, cast

from pairmatch.core.errors import id_hint, suggestion
from pairmatch.core.text import printable
from pairmatch.core.types import Pair
from pairmatch.io.tables import Table

_log = logging.getLogger(__name__)
OUTCOMES = ("match", "rejected")


class PairRows:
    """Turns rows into pairs, and records inconsistent ones in the table.

    Args:
        table: Table with the columns `id_a` and `id_b`, and optionally `outcome` and `group`.
        sides: 2, or 1 if a person may be a in one pair and b in another.
    """

    def __init__(self, table: Table, sides: Literal[1, 2]) -> None:
        self.pairs: list[Pair] = []
        self._table = table
        self._sides = sides
        self._rows: list[int] = []  # of each pair
        self._first: dict[tuple[str, ...], int] = {}  # position of each pair, by its ids

    def ids(self, row: int) -> dict[str, str]:
        """Ids of a row by side, `a` and `b`; empty if the cell is blank."""
        return {side: self._table.rows[row].get(f"id_{side}", "") for side in "ab"}

    def add(self, row: int, ids: Mapping[str, str]) -> None:
        """Adds the pair of a row, unless it has a problem."""
        cells = self._table.rows[row]
        outcome = str(cells.get("outcome", "match")).lower()
        if outcome not in OUTCOMES:
            self._table.problem(
                row,
                "outcome",
                f"{outcome!r} is neither 'match' nor 'rejected'.{suggestion(outcome, OUTCOMES)}",
            )
            return
        if not all(ids.values()):
            return
        if ids["a"] == ids["b"]:
            self._table.problem(row, "id_b", f"{ids['a']!r} is paired with itself.")
            return
        pair = Pair(
            ids["a"],
            ids["b"],
            cast(Literal["match", "rejected"], outcome),
            cells.get("group"),
        )
        if not self._is_duplicate(row, pair):
            self.pairs.append(pair)
            self._rows.append(row)

    def _is_duplicate(self, row: int, pair: Pair) -> bool:
        key = (pair.a, pair.b) if self._sides == 2 else tuple(sorted((pair.a, pair.b)))
        position = self._first.setdefault(key, len(self.pairs))
        if position == len(self.pairs):
            return False
        first = self.pairs[position].outcome
        fault = "is given twice" if first == pair.outcome else f"is {first!r} and {pair.outcome!r}"
        location = self._table.locations[self._rows[position]]
        self._table.problem(
            row, "id_a", f"the pair {pair.a!r}, {pair.b!r} {fault}, first in {location}."
        )
        return True

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
        if words:
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

"""What was known when a head was learned: which people were seen, and which matches are no news."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, positions_of
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Pair, Target
from pairmatch.data import Pairs
from pairmatch.data.checking import check_same_sides
from pairmatch.evaluation.query_table import QueryTable

Flags = npt.NDArray[np.bool_]

_KINDS: dict[Target, str] = {
    "match": "matches",
    "a_likes": "pairs with a yes of side a",
    "b_likes": "pairs with a yes of side b",
}


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What was known about the people of a `PairedFeatures` when a head was learned.

    Attributes:
        matches: [K, 2] int64 rows of a and of b that were known to match, or where the target is
            the yes of one side, pairs in which that yes was known. The two are no candidates of
            each other, as in the filtered ranks of Bordes et al. (2013, "Translating Embeddings for
            Modeling Multi-relational Data").
        seen_a: [N] whether each person of side a was seen in training; of all people in one-sided
            sets.
        seen_b: [M] the same for side b; None in one-sided sets.
    """

    matches: Ints
    seen_a: Flags
    seen_b: Flags | None

    @classmethod
    def of(cls, pairs: Pairs, known: Pairs, target: Target = "match") -> Known:
        """What pairs tell about the people of other pairs.

        Args:
            pairs: Pairs whose people are asked for, as `without_known` returns them.
            known: Pairs that were known. Their people, and all people of their groups, are seen.
            target: What is to be found.
        """
        groups = {pair.group for pair in known.pairs if pair.group is not None}
        seen = set(known.profiles)
        for pair in pairs.pairs:
            if pair.group in groups:
                seen |= {pair.a, pair.b}
        row_a = {person: row for row, person in enumerate(pairs.ids_a)}
        row_b = {person: row for row, person in enumerate(pairs.ids_b)}
        matches = [
            (row_a[pair.a], row_b[pair.b])
            for pair in known.pairs
            if _has(pair, target) and pair.a in row_a and pair.b in row_b
        ]
        return cls(
            np.array(matches, np.int64).reshape(-1, 2),
            _are_in(pairs.ids_a, seen),
            None if pairs.sides == 1 else _are_in(pairs.ids_b, seen),
        )

    def seen_units(self, data: PairedFeatures) -> Flags:
        """[units] whether a person of each unit was seen.

        Raises:
            ConfigurationError: The rows are not those of `data`, or a match of `data` is known.
        """
        sizes = [None if side is None else len(side) for side in (self.seen_a, self.seen_b)]
        if sizes != [len(data.a), None if data.b is None else len(data.b)]:
            raise ConfigurationError(
                f"`known` is about {sizes} people of the sides, the features about others: build "
                "it with `Known.of(pairs, known)` from the same pairs."
            )
        wanted = data.matches
        if data.one_sided:  # a pair has no direction
            wanted = np.concatenate([wanted, wanted[:, ::-1]])
        if (positions_of(wanted, self.matches) >= 0).any():
            raise ConfigurationError(
                "`known` holds matches that are to be found: leave them out with `without_known`."
            )
        units = np.zeros(int(data.units.max(initial=-1)) + 1, bool)
        units[data.units_a[self.seen_a]] = True
        if self.seen_b is not None and data.units_b is not None:
            units[data.units_b[self.seen_b]] = True
        return units


def without_known(pairs: Pairs, known: Pairs, target: Target = "match") -> tuple[Pairs, int]:
    """The pairs whose match, or yes of one side, was not known, and the number of those left out.

    Args:
        pairs: Pairs to test on.
        known: Pairs that were known at training time.
        target: What is to be found.

    Raises:
        DataError: All matches (or yes) are known, or a person changes sides.
    """
    check_same_sides(pairs, known)
    keys = {_key(pair.a, pair.b, pairs.sides) for pair in known.pairs if _has(pair, target)}
    kept = [
        row for row, pair in enumerate(pairs.pairs) if _key(pair.a, pair.b, pairs.sides) not in keys
    ]
    if len(kept) == len(pairs.pairs):
        return pairs, 0
    rest = pairs.subset(kept)
    counts = [sum(_has(pair, target) for pair in part.pairs) for part in (pairs, rest)]
    if counts[0] and not counts[1]:
        raise DataError(
            f"All {counts[0]} {_KINDS[target]} to test on were known at training time: there is "
            f"nothing to find. Test on {_KINDS[target]} that are not in the training pairs."
        )
    return rest, counts[0] - counts[1]


def left_out_note(count: int, target: Target = "match") -> str:
    """A note on what `without_known` has left out."""
    return f"{count} {_KINDS[target]} are left out: they were known at training time."


def _has(pair: Pair, target: Target) -> bool:
    """Whether a pair is known to be a match, or the side of a target to have said yes."""
    if target == "match":
        return pair.outcome == "match"
    return bool(pair.likes[target == "b_likes"])


def _key(a: str, b: str, sides: int) -> tuple[str, ...]:
    return (a, b) if sides == 2 else tuple(sorted((a, b)))


def _are_in(ids: Collection[str], chosen: Collection[str]) -> Flags:
    return np.array([person in chosen for person in ids], bool)


def flags_by_side(data: PairedFeatures, units: Flags) -> list[Flags]:
    """Flags of units as flags of the people of each side, or of all people."""
    sides = [data.units_a] if data.units_b is None else [data.units_a, data.units_b]
    return [units[side] for side in sides]


def with_seen(table: QueryTable, seen: Sequence[Flags]) -> QueryTable:
    """The table with a column `seen`: whether the query person, by side, is among those seen."""
    is_seen = np.empty(len(table), np.int64)
    for side, people in enumerate(seen):
        rows = table["direction"] == side
        is_seen[rows] = people[table["query"][rows]]
    return table.with_column("seen", is_seen)

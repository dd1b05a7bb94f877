"""`Pools`: who could have met whom."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pairmatch.core.arrays import Ints, positions_of
from pairmatch.core.components import label_components
from pairmatch.core.errors import ConfigurationError

NO_POOL = -1


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """The pools of people and of pairs: events, or regions and days.

    The candidates of a person are the people of the other side in the same pool. A person may
    belong to several pools, and each pair belongs to one.

    Attributes:
        names: Name of each pool. Parts of a set keep the names and numbers of the whole.
        a: [A, 2] int64 row of a person of side a and number of a pool, distinct, ascending by pool.
        b: [B, 2] int64 the same for side b; None in one-sided sets.
        pairs: [E, 2] int64 rows of sides a and b, distinct.
        pool: [E] int64 pool of each pair; −1 if it is not known.
    """

    names: tuple[str, ...]
    a: Ints
    b: Ints | None
    pairs: Ints
    pool: Ints

    @classmethod
    def of(
        cls,
        pairs: Ints | Sequence[tuple[int, int]],
        pool: Sequence[str | None],
        *,
        a: Sequence[Collection[str]] = (),
        b: Sequence[Collection[str]] = (),
        one_sided: bool = False,
    ) -> Pools:
        """Builds pools from the names of those of pairs and people.

        Both people of a pair belong to its pool. A pair without a pool belongs to the first of a's
        pools that b belongs to as well, if there is one.

        Args:
            pairs: [E, 2] rows of sides a and b.
            pool: Name of the pool of each pair; None if it is not known.
            a: Names of further pools of each person of side a, by row; of all people if
                `one_sided`.
            b: The same for side b.
            one_sided: Whether both rows of a pair are of the same people.

        Raises:
            ConfigurationError: There is not one pool per pair, or a pair is given twice.
        """
        rows = np.asarray(pairs, np.int64).reshape(-1, 2)
        others = a if one_sided else b
        if len(pool) != len(rows):
            raise ConfigurationError(
                f"`Pools.of(pairs, pool)` needs one pool per pair, {len(rows)}, got {len(pool)}."
            )
        if len(np.unique(rows, axis=0)) < len(rows):
            raise ConfigurationError("`Pools.of(pairs, ...)`: a pair is given twice.")
        chosen = list(pool)
        for position, (first, second) in enumerate(rows.tolist()):
            if chosen[position] is None and first < len(a) and second < len(others):
                shared = (name for name in a[first] if name in others[second])
                chosen[position] = next(shared, None)
        named = [chosen, *(names for side in (a, others) for names in side)]
        names = sorted({name for group in named for name in group if name is not None})
        number = {name: position for position, name in enumerate(names)}
        pools = np.array([NO_POOL if name is None else number[name] for name in chosen], np.int64)
        members = []
        for side, further in enumerate((a, others)):
            of_people = [(row, number[name]) for row, group in enumerate(further) for name in group]
            of_pairs = np.stack([rows[:, side], pools], axis=1)[pools != NO_POOL]
            members.append(np.concatenate([np.array(of_people, np.int64).reshape(-1, 2), of_pairs]))
        if one_sided:
            return cls(tuple(names), _distinct(np.concatenate(members)), None, rows, pools)
        of_a, of_b = map(_distinct, members)
        return cls(tuple(names), of_a, of_b, rows, pools)

    def check(self, people_a: int, people_b: int | None) -> None:
        """Raises ConfigurationError unless the rows are those of people."""
        if (self.b is None) != (people_b is None):
            raise ConfigurationError(
                "`pools` and features must both be one-sided, or both two-sided: "
                "`Pools.of(..., one_sided=True)` makes one-sided ones."
            )
        for side, members, people in (("a", self.a, people_a), ("b", self.b, people_b)):
            rows = np.empty(0, np.int64) if members is None else members[:, 0]
            if people is not None and len(rows) and not 0 <= rows.min() <= rows.max() < people:
                raise ConfigurationError(
                    f"`pools` names rows of side {side} that do not exist ({people} people)."
                )

    def of_pairs(self, pairs: Ints) -> Pools:
        """The pools with those of exactly these pairs, in this order; −1 for pairs without one.

        Args:
            pairs: [E, 2] rows of sides a and b.
        """
        positions = positions_of(self.pairs, pairs)
        if self.b is None:  # a pair has no direction
            positions = np.maximum(positions, positions_of(self.pairs, pairs[:, ::-1]))
        pool = np.full(len(pairs), NO_POOL, np.int64)
        known = positions >= 0
        pool[known] = self.pool[positions[known]]
        return replace(self, pairs=pairs, pool=pool)

    def take(self, rows_a: Ints, rows_b: Ints) -> Pools:
        """The pools of some people, who are renumbered, and of the pairs among them.

        Args:
            rows_a: [n] rows of side a to keep, ascending.
            rows_b: [m] the same for side b; the same as `rows_a` in one-sided sets.
        """
        kept = np.isin(self.pairs[:, 0], rows_a) & np.isin(self.pairs[:, 1], rows_b)
        first, second = self.pairs[kept].T
        pairs = np.stack([np.searchsorted(rows_a, first), np.searchsorted(rows_b, second)], axis=1)
        return replace(
            self,
            a=_members_among(self.a, rows_a),
            b=None if self.b is None else _members_among(self.b, rows_b),
            pairs=pairs.astype(np.int64),
            pool=self.pool[kept],
        )

    def join_units(self, units: Ints, people_a: int) -> Ints:
        """[N + M] int64 units in which the people of a pool are one.

        Args:
            units: [N + M] int64 unit of each person, side a first; [N] in one-sided sets.
            people_a: Number of people on side a.
        """
        nodes = int(units.max(initial=-1)) + 1
        links = [np.stack([units[self.a[:, 0]], self.a[:, 1] + nodes], axis=1)]
        if self.b is not None:
            links.append(np.stack([units[self.b[:, 0] + people_a], self.b[:, 1] + nodes], axis=1))
        joined: Ints = label_components(np.concatenate(links), nodes + len(self.names))[units]
        return joined

    def people(self) -> list[tuple[Ints, Ints]]:
        """Rows of the people of each pool on sides a and b, ascending; equal in one-sided sets."""
        ends = np.arange(1, len(self.names))
        rows_a, rows_b = (
            np.split(side[:, 0], np.searchsorted(side[:, 1], ends))
            for side in (self.a, self.a if self.b is None else self.b)
        )
        return list(zip(rows_a, rows_b, strict=True))

    def sizes(self) -> tuple[Ints, Ints]:
        """[pools] number of people of sides a and b in each pool; equal in one-sided sets."""
        of_a = np.bincount(self.a[:, 1], minlength=len(self.names))
        if self.b is None:
            return of_a, of_a
        return of_a, np.bincount(self.b[:, 1], minlength=len(self.names))


def _distinct(members: Ints) -> Ints:
    """Distinct rows, ascending by pool, then by person."""
    return np.unique(members[:, ::-1], axis=0)[:, ::-1].astype(np.int64)


def _members_among(members: Ints, rows: Ints) -> Ints:
    kept = members[np.isin(members[:, 0], rows)]
    return np.stack([np.searchsorted(rows, kept[:, 0]), kept[:, 1]], axis=1).astype(np.int64)

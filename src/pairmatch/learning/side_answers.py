"""`SideAnswers`: the yes and no of one side, weighted, as the learner `likes` reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.decisions import NO, UNKNOWN, YES
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import NO_POOL, Pools
from pairmatch.core.types import Side
from pairmatch.learning.decompositions import Doubles

Mask = npt.NDArray[np.bool_]
_FEW_REJECTIONS = 0.1
_UNSEEN = 5


@dataclass(frozen=True, slots=True, eq=False)
class SideAnswers:
    """SideAnswers of the people of one side, the askers, about candidates. E answers.

    Attributes:
        askers: [E] int64 rows of the people who answered.
        candidates: [E] int64 rows of the people whom they answered about.
        yes: [E] bool.
        weights: [E] float64, at least 0.
        units: [E, 2] int64 unit of asker and candidate.
        components: [E] int64 component of the pair.
        pools: [E] int64 pool of the pair; −1 if it is not known.
    """

    askers: Ints
    candidates: Ints
    yes: Mask
    weights: Doubles
    units: Ints
    components: Ints
    pools: Ints

    @classmethod
    def of(
        cls, data: PairedFeatures, side: Side, *, match: float, like: float, rejection: float
    ) -> SideAnswers:
        """The known answers of a side; in one-sided sets those of both people of each pair.

        Args:
            data: Features and decisions.
            side: The side whose answers are taken.
            match: Weight of a yes that was returned.
            like: Weight of any other yes.
            rejection: Weight of a no.
        """
        decisions = data.decisions
        is_match = (decisions.a == YES) & (decisions.b == YES)
        pools = np.full(len(decisions), NO_POOL) if data.pools is None else data.pools.pool
        parts = []
        for column in (0, 1) if data.one_sided else (int(side == "b"),):
            said = (decisions.a, decisions.b)[column]
            known = np.flatnonzero(said != UNKNOWN)
            pairs = decisions.pairs[known]
            weights = np.where(is_match[known], match, like)
            parts.append(
                cls(
                    pairs[:, column],
                    pairs[:, 1 - column],
                    said[known] == YES,
                    np.where(said[known] == NO, rejection, weights).astype(np.float64),
                    data.unit_pairs(pairs)[:, [column, 1 - column]],
                    data.decision_components[known],
                    pools[known],
                )
            )
        return parts[0] if len(parts) == 1 else parts[0].joined(parts[1])

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.yes)

    @property
    def share_of_yes(self) -> float:
        """Weighted share of yes; 0.5 without any weight."""
        total = self.weights.sum()
        return float(self.weights[self.yes].sum() / total) if total else 0.5

    @property
    def independent(self) -> int:
        """Number of units among those who said yes or among those who were liked, the lower."""
        return min(len(np.unique(side)) for side in self.units[self.yes].T)

    def select(self, rows: Mask | Ints) -> SideAnswers:
        """Some of the answers, by mask or by number."""
        return SideAnswers(*(getattr(self, name)[rows] for name in self.__slots__))

    def joined(self, other: SideAnswers) -> SideAnswers:
        """These answers, followed by others."""
        return SideAnswers(
            *(
                np.concatenate([getattr(self, name), getattr(other, name)])
                for name in self.__slots__
            )
        )

    def with_unseen(
        self, data: PairedFeatures, side: Side, per_yes: int | None, rng: np.random.Generator
    ) -> tuple[SideAnswers, int]:
        """Adds pairs drawn at random as a no, for logs that hold only likes.

        Candidates come from the same pool, if the yes has one; pairs of which anything is known
        are left out.

        Args:
            data: Features and decisions.
            side: The side whose answers these are.
            per_yes: Number of draws per yes; None draws 5 if there is less than one no per 10 yes.
            rng: Random numbers.

        Returns:
            The answers, and how many were drawn.
        """
        if per_yes is None:
            is_enough = (~self.yes).sum() >= _FEW_REJECTIONS * self.yes.sum()
            per_yes = 0 if is_enough else _UNSEEN
        rows = np.repeat(np.flatnonzero(self.yes), per_yes)
        column = int(side == "b")
        candidates, units = _draw_candidates(data, 1 - column, self.pools[rows], rng)
        drawn = SideAnswers(
            self.askers[rows],
            candidates,
            np.zeros(len(rows), bool),
            self.weights[rows],
            np.stack([self.units[rows, 0], units], axis=1),
            self.components[rows],
            self.pools[rows],
        )
        pairs = np.stack([drawn.askers, candidates], axis=1)
        known = data.decisions.pairs[:, [column, 1 - column]]
        if data.one_sided:
            known = np.concatenate([known, known[:, ::-1]])
        width = int(known.max(initial=0)) + len(data.a) + (0 if data.b is None else len(data.b))
        is_known = np.isin(pairs @ [width, 1], known @ [width, 1])
        if data.one_sided:
            is_known |= pairs[:, 0] == pairs[:, 1]
        drawn = drawn.select(~is_known)
        return self.joined(drawn), len(drawn)

    def splits(self, folds: int, rng: np.random.Generator) -> list[tuple[Mask, Mask]]:
        """Training and test answers that share no people.

        By component if none is larger than a fold; otherwise by person, leaving out the answers
        between a fold and other people.
        """
        labels, sizes = np.unique(self.components, return_counts=True)
        if sizes.max() <= len(self) / folds:
            order = rng.permutation(len(labels))
            before = np.cumsum(sizes[order]) - sizes[order]
            fold_of = np.empty(len(labels), np.int64)
            fold_of[order] = before * folds // len(self)
            fold = np.repeat(fold_of[np.searchsorted(labels, self.components)][:, None], 2, axis=1)
        else:
            fold = rng.integers(folds, size=int(self.units.max()) + 1)[self.units]
        splits = [((fold != part).all(1), (fold == part).all(1)) for part in range(folds)]
        return [(train, test) for train, test in splits if train.any() and test.any()]


def _draw_candidates(
    data: PairedFeatures, column: int, pools: Ints, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """One candidate for each draw, from its pool or from all people, and their units."""
    people = data.a if column == 0 or data.b is None else data.b
    units = data.units_a if column == 0 or data.units_b is None else data.units_b
    candidates = rng.integers(len(people), size=len(pools))
    if data.pools is not None:
        inside = pools != NO_POOL
        members = _members(data.pools, column)
        sizes = np.bincount(members[:, 1], minlength=len(data.pools.names))
        starts = np.cumsum(sizes) - sizes
        pool = pools[inside]
        place = (rng.random(len(pool)) * sizes[pool]).astype(np.int64)
        candidates[inside] = members[starts[pool] + place, 0]
    return candidates, units[candidates]


def _members(pools: Pools, column: int) -> Ints:
    return pools.a if column == 0 or pools.b is None else pools.b

"""AUC inside groups of scores, such as those of one asking person, and its standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.evaluation.links import effective_number
from pairmatch.evaluation.ranks import Doubles


class GroupedAUC:
    """Mann–Whitney statistics of groups of scores. R rows, G groups.

    Args:
        group: [R] int64 number of the group of each row.
        scores: [R] float32.
        yes: [R] bool.

    Attributes:
        values: [G] AUC of each group; NaN without a yes or without a no.
        first: [G] int64 a row of each group.
        usable: [G] bool: whether a group has both a yes and a no.
    """

    def __init__(self, group: Ints, scores: Vectors, yes: npt.NDArray[np.bool_]) -> None:
        _, self.first, self._group = np.unique(group, return_index=True, return_inverse=True)
        counts = np.stack([np.bincount(self._group, yes), np.bincount(self._group, ~yes)])
        self.usable = counts.min(0) > 0
        self._number = np.where(yes, *counts[:, self._group])
        others = np.where(yes, *counts[::-1, self._group])
        ordered = np.where(yes, self._beaten(scores, yes), others - self._beaten(scores, ~yes))
        # [R] share of the group's rows with the other answer with which a row is in right order
        self._share = ordered / np.maximum(others, 1)
        wins = np.bincount(self._group, self._share * yes)
        self.values = np.full(len(wins), np.nan)
        np.divide(wins, counts[0], out=self.values, where=self.usable)

    def _beaten(self, scores: Vectors, chosen: npt.NDArray[np.bool_]) -> Doubles:
        """[R] number of rows of the group that are not chosen and score less, ties one half."""
        order = np.lexsort((scores, self._group))
        group, score = self._group[order], scores[order]
        others = ~chosen[order]
        new_group = np.append(True, group[1:] != group[:-1])
        new_score = new_group | np.append(True, score[1:] != score[:-1])
        ties = np.flatnonzero(new_score)
        tied = np.add.reduceat(others.astype(np.float64), ties)
        below = np.cumsum(tied) - tied
        starts = np.flatnonzero(new_group[ties])
        below -= np.repeat(below[starts], np.diff(np.append(starts, len(ties))))
        beaten = np.empty(len(order))
        beaten[order] = np.repeat(below + tied / 2, np.diff(np.append(ties, len(order))))
        return beaten

    def error(self, askers: Ints, candidates: Ints, *, by_asker: bool) -> tuple[float, float]:
        """Standard error of the mean of all groups, with people of both sides as clusters.

        It also returns the degrees of freedom: the effective number of people of the smaller side,
        minus 1. A row moves the mean by u, the deviation of its share of rightly ordered rows,
        divided by the number of rows with its answer and by the number of groups (the placements
        of DeLong, DeLong and Clarke-Pearson 1988, "Comparing the Areas under Two or More Correlated
        Receiver Operating Characteristic Curves"). With S the sum of u over the rows of a person,
        the variance is ΣS² − Σu² over people and pairs of people, as in
        [`Links.standard_errors`][pairmatch.evaluation.links.Links.standard_errors]. Where groups
        belong to asking people, deviations are those from the mean of all groups, and an asking
        person adds the deviation of their group instead of the u of its rows. Other groups are
        taken as given. As deviations are from a mean that a person takes part in, S is divided by 1
        minus the person's share of the rows.

        Args:
            askers: [R] int64 number of a person: odd for side b.
            candidates: [R] int64 number of a person.
            by_asker: Whether each group is one asking person's.
        """
        rows = np.flatnonzero(self.usable[self._group])
        group = self._group[rows]
        groups = int(self.usable.sum())
        mean = float(np.nanmean(self.values))
        center = mean if by_asker else self.values[group]
        u = (self._share[rows] - center) / (self._number[rows] * groups)
        ends = np.stack([askers[rows], candidates[rows]], axis=1)
        people, place = np.unique(ends, return_inverse=True)
        place = place.reshape(-1, 2)
        _, pair = np.unique(np.sort(place, axis=1), axis=0, return_inverse=True)
        sums: npt.NDArray[Any] = np.bincount(place[:, 1], u, len(people))
        if by_asker:
            own: npt.NDArray[Any] = np.zeros(len(people))
            asking = np.searchsorted(people, askers[self.first[self.usable]])
            np.add.at(own, asking, (self.values[self.usable] - mean) / groups)
            least = np.square(own).sum()
        else:
            own = np.bincount(place[:, 0], u, len(people))
            least = np.square(u).sum()
        shared = np.square(np.bincount(pair.ravel(), u)).sum()
        rows_of = np.bincount(place.ravel(), minlength=len(people))
        sums = (sums + own) / np.maximum(1 - rows_of / len(rows), 0.5)
        variance = max(float(np.square(sums).sum() - shared), float(least))
        sides = [rows_of[people % 2 == side] for side in (0, 1)]
        smaller = min(effective_number(side) for side in sides if len(side))
        return float(np.sqrt(variance)), max(smaller - 1, 1.0)

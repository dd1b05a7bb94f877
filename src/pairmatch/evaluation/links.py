"""The links behind a table's rows, and standard errors for people who stand in several of them.

With couples, a pair is an observation of its own. In an app's log people stand in many pairs, and
nearly all of them are connected: no part is independent of the rest, but two links are dependent
only if they share a person. `Links.standard_errors` counts exactly that dependence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from pairmatch.core.arrays import Ints
from pairmatch.core.components import label_components
from pairmatch.evaluation.ranks import Doubles
from pairmatch.evaluation.rivals import Pushes, Rivals, take

_ENOUGH_COMPONENTS = 10
_NEARLY_ALL = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """The partners of each row of a table, as pairs of units. Q rows, L links.

    Attributes:
        starts: [Q + 1] int64: the links of row q are those from `starts[q]` to `starts[q + 1]`.
        units: [L, 2] int64 units of the two people of each link, side a first; of the query person
            and the partner in one-sided sets. A unit is a person, or people of one group.
        rivals: The candidates that outrank the partners; None if they are not known.
    """

    starts: Ints
    units: Ints
    rivals: Rivals | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def select(self, rows: npt.NDArray[np.bool_] | Ints) -> Links:
        """The links of some rows, by mask or by number."""
        chosen = np.arange(len(self))[rows]
        starts, index = take(self.starts, chosen)
        rivals = None if self.rivals is None else self.rivals.select(index)
        return Links(starts, self.units[index], rivals)

    @classmethod
    def concatenate(cls, parts: Sequence[Links]) -> Links:
        """The links of several tables, one after the other."""
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        starts = np.concatenate([[0], np.cumsum(counts)])
        rivals = [part.rivals for part in parts if part.rivals is not None]
        return cls(
            starts,
            np.concatenate([part.units for part in parts]),
            Rivals.concatenate(rivals) if len(rivals) == len(parts) else None,
        )

    @property
    def note(self) -> str:
        """What intervals and tests of these links are over."""
        return (
            f"Nearly all people are connected: intervals and tests are over people of both sides, "
            f"{self.independent} of the smaller, not over groups of connected people."
        )

    @property
    def independent(self) -> int:
        """Number of units with a link, of the side that has fewer."""
        return min(len(np.unique(side)) for side in self.units.T)

    def clusters(self, components: Ints, pools: npt.NDArray[np.str_] | None = None) -> Ints | Links:
        """[Q] int64 labels of independent clusters of rows; the links if they are too few.

        Clusters are the components, joined where rows of several splits share people. There are
        enough if their effective number (Σn)² / Σn², with n the rows of a cluster, is at least 10,
        or at least four fifths of the number of people of the smaller side, as with couples. Rows
        of one pool, which share their candidates, are joined if at least 10 clusters are left.

        Args:
            components: [Q] int64 component of each row in its own split.
            pools: [Q] name of the pool of each row, blank if it is not known; None without pools.
        """
        _, labels = np.unique(components, return_inverse=True)
        size = int(labels.max(initial=-1)) + 1
        units = np.unique(self.units, return_inverse=True)[1].reshape(-1, 2)
        component = np.repeat(labels, np.diff(self.starts))
        ends = np.stack([np.tile(component, 2), size + units.T.ravel()], axis=1)
        if pools is not None:
            pool = ends.max() + 1 + np.unique(pools, return_inverse=True)[1]
            of_pool = np.stack([labels, pool], axis=1)[pools != ""]
            joined = label_components(np.concatenate([ends, of_pool]), int(pool.max()) + 1)[labels]
            if effective_number(np.bincount(joined)) >= _ENOUGH_COMPONENTS:
                return joined if len(np.unique(joined)) < size else components
        joined = label_components(ends, int(ends.max()) + 1)[labels]
        enough = min(_ENOUGH_COMPONENTS, _NEARLY_ALL * self.independent)
        if effective_number(np.bincount(joined)) < enough:
            return self
        return joined if len(np.unique(joined)) < size else components

    def pushes(self, figures: Sequence[str]) -> Pushes | None:
        """What each person adds to each figure as a candidate; None if it is not known."""
        if self.rivals is None or not len(self.rivals.units):
            return None
        rows = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return self.rivals.pushes(rows, figures)

    def standard_errors(
        self, values: Doubles, pushes: Pushes | None = None
    ) -> tuple[Doubles, float]:
        """Standard errors of means over rows, and their degrees of freedom.

        A row's value belongs in equal parts to its links, and both directions and all repeats of
        one link are added up. With u the deviation of a link's part from the mean, and S the sum of
        u over the links of a person plus what the person adds as a candidate, the variance is
        ΣS² − Σu² (two-way clusters, Cameron, Gelbach and Miller 2011, "Robust Inference With
        Multiway Clustering"; the pigeonhole model of Owen 2007), and never less than that of
        independent links, Σu². There are as many degrees of freedom as the smaller side's effective
        number of people, minus 1.

        Args:
            values: [Q, F] the values of F figures.
            pushes: What people add to the figures as candidates.
        """
        rows = len(values)
        counts = np.diff(self.starts)
        of_row = np.repeat(np.arange(rows), counts)
        share = 1 / (rows * counts[of_row])
        first, second, link = self._distinct()
        if pushes is None:
            pushes = np.empty(0, np.int64), np.empty((0, values.shape[1]))
        nodes = np.unique(np.concatenate([first, second, pushes[0]]))
        first, second, candidate = (
            np.searchsorted(nodes, units) for units in (first, second, pushes[0])
        )
        deviations = (values - values.mean(0))[of_row] * share[:, None]
        errors = np.empty(values.shape[1])
        for figure, deviation in enumerate(deviations.T):
            u = np.bincount(link, deviation)
            people = np.bincount(first, u, len(nodes)) + np.bincount(second, u, len(nodes))
            people += np.bincount(candidate, pushes[1][:, figure], len(nodes))
            independent = np.square(u).sum()
            errors[figure] = np.sqrt(max(np.square(people).sum() - independent, independent))
        smaller = min(effective_number(np.bincount(side, share)) for side in self._sides())
        return errors, max(smaller - 1, 1)

    def _sides(self) -> list[Ints]:
        return [np.unique(side, return_inverse=True)[1] for side in self.units.T]

    def _distinct(self) -> tuple[Ints, Ints, Ints]:
        """The two units of each distinct pair, and the number of each link's pair.

        A pair within one unit gets a number of its own as its second end, so that its value counts
        once.
        """
        pairs, link = np.unique(np.sort(self.units, axis=1), axis=0, return_inverse=True)
        first, second = pairs.T.copy()
        inside = np.flatnonzero(first == second)
        second[inside] = -1 - np.arange(len(inside))
        return first, second, link.ravel()


def student_interval(
    mean: float, error: float, freedom: float, confidence: float
) -> tuple[float, float]:
    """Student's interval of a mean from its standard error and degrees of freedom."""
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * error
    return float(mean - reach), float(mean + reach)


def effective_number(weights: Doubles | Ints) -> float:
    """The number of equal weights whose mean has the same variance: (Σw)² / Σw²."""
    return float(np.sum(weights) ** 2 / np.square(weights).sum())

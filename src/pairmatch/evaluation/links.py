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

_ENOUGH_COMPONENTS = 10
_NEARLY_ALL = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """The partners of each row of a table, as pairs of units. Q rows, L links.

    Attributes:
        starts: [Q + 1] int64: the links of row q are those from `starts[q]` to `starts[q + 1]`.
        units: [L, 2] int64 units of the two people of each link, side a first; of the query person
            and the partner in one-sided sets. A unit is a person, or people of one group.
    """

    starts: Ints
    units: Ints

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    def select(self, rows: npt.NDArray[np.bool_] | Ints) -> Links:
        """The links of some rows, by mask or by number."""
        chosen = np.arange(len(self))[rows]
        counts = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)])
        index = np.arange(starts[-1]) + np.repeat(self.starts[chosen] - starts[:-1], counts)
        return Links(starts, self.units[index])

    @classmethod
    def concatenate(cls, parts: Sequence[Links]) -> Links:
        """The links of several tables, one after the other."""
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(starts, np.concatenate([part.units for part in parts]))

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

    def clusters(self, components: Ints) -> Ints | Links:
        """[Q] int64 labels of independent clusters of rows; the links if they are too few.

        Clusters are the components, joined where rows of several splits share people. There are
        enough if their effective number (Σn)² / Σn², with n the rows of a cluster, is at least 10,
        or at least four fifths of the number of people of the smaller side, as with couples.

        Args:
            components: [Q] int64 component of each row in its own split.
        """
        _, labels, counts = np.unique(components, return_inverse=True, return_counts=True)
        units = np.unique(self.units, return_inverse=True)[1].reshape(-1, 2)
        component = np.repeat(labels, np.diff(self.starts))
        nodes = len(counts) + int(units.max(initial=-1)) + 1
        ends = np.stack([np.tile(component, 2), len(counts) + units.T.ravel()], axis=1)
        joined = label_components(ends, nodes)[: len(counts)]
        sizes = np.bincount(joined, counts)
        if _effective(sizes) < min(_ENOUGH_COMPONENTS, _NEARLY_ALL * self.independent):
            return self
        return components if len(sizes) == len(counts) else joined[labels]

    def standard_errors(self, values: Doubles) -> tuple[Doubles, float]:
        """Standard errors of means over rows, and their degrees of freedom.

        A row's value belongs in equal parts to its links, and both directions and all repeats of
        one link are added up. With u the deviation of a link's part of the mean, and S the sum of u
        over the links of a person, the variance is ΣS² − Σu² (two-way clusters, Cameron, Gelbach
        and Miller 2011, "Robust Inference With Multiway Clustering"; the pigeonhole model of Owen
        2007), and never less than that of independent links, Σu². There are as many degrees of
        freedom as the smaller side's effective number of people, minus 1.

        Args:
            values: [Q, F] the values of F figures.
        """
        rows = len(values)
        counts = np.diff(self.starts)
        of_row = np.repeat(np.arange(rows), counts)
        share = 1 / (rows * counts[of_row])
        first, second, link = self._distinct()
        deviations = (values - values.mean(0))[of_row] * share[:, None]
        errors = np.empty(values.shape[1])
        for figure, deviation in enumerate(deviations.T):
            u = np.bincount(link, deviation)
            people = np.bincount(first, u, second.max() + 1) + np.bincount(second, u)
            independent = np.square(u).sum()
            errors[figure] = np.sqrt(max(np.square(people).sum() - independent, independent))
        smaller = min(_effective(np.bincount(side, share)) for side in self._sides())
        return errors, max(smaller - 1, 1)

    def _sides(self) -> list[Ints]:
        return [np.unique(side, return_inverse=True)[1] for side in self.units.T]

    def _distinct(self) -> tuple[Ints, Ints, Ints]:
        """The two nodes of each distinct pair of units, and the number of each link's pair.

        A pair within one unit gets a node of its own as its second end, so that its value counts
        once.
        """
        names, nodes = np.unique(self.units, return_inverse=True)
        low, high = np.sort(nodes.reshape(-1, 2), axis=1).T
        keys, link = np.unique(low * len(names) + high, return_inverse=True)
        first, second = np.divmod(keys, len(names))
        inside = np.flatnonzero(first == second)
        second[inside] = len(names) + np.arange(len(inside))
        return first, second, link


def student_interval(
    mean: float, error: float, freedom: float, confidence: float
) -> tuple[float, float]:
    """Student's interval of a mean from its standard error and degrees of freedom."""
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * error
    return mean - reach, mean + reach


def _effective(weights: Doubles | Ints) -> float:
    """The number of equal weights whose mean has the same variance: (Σw)² / Σw²."""
    return float(np.sum(weights) ** 2 / np.square(weights).sum())

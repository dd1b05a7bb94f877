"""Hubness: how evenly recommendations fall on candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError

_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Hubness:
    """How evenly recommendations fall on candidates of one direction.

    Attributes:
        k: Length of the lists.
        skewness: Of how often each candidate is among somebody's first k (Radovanović et al. 2010);
            0 is even.
        never: Share of candidates who are in nobody's list.
        gini: Of exposure, 0 (all alike) to 1.
        counts: [candidates] int64, lists that each candidate is in.
    """

    k: int
    skewness: float
    never: float
    gini: float
    counts: Ints

    def __str__(self) -> str:
        return (
            f"{100 * self.never:.0f} % of candidates are in nobody's first {self.k}; exposure Gini {self.gini:.2f}, "
            f"skewness {self.skewness:.1f}"
        )


def hubness(queries: Floats, candidates: Floats, *, k: int = 10, same: bool = False) -> Hubness:
    """Counts how often each candidate is among a query's first k.

    Args:
        queries: [N, K] unit length.
        candidates: [M, K] unit length.
        k: Length of the lists, below M.
        same: Queries are the candidates, row by row: nobody is recommended to themself.

    Raises:
        ConfigurationError: A k that is not below the number of candidates.
    """
    if not 1 <= k < len(candidates):
        raise ConfigurationError(
            f"`hubness(k=...)` must be from 1 to below {len(candidates)} candidates, got {k}."
        )
    counts = np.zeros(len(candidates), np.int64)
    for start in range(0, len(queries), _CHUNK_ROWS):
        scores = queries[start : start + _CHUNK_ROWS] @ candidates.T
        if same:
            own = np.arange(len(scores))
            scores[own, start + own] = -np.inf
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        counts += np.bincount(best.ravel(), minlength=len(candidates))
    skewness = float(stats.skew(counts)) if np.ptp(counts) else 0.0
    return Hubness(k, skewness, float((counts == 0).mean()), gini(counts), counts)


def gini(values: Floats | Ints) -> float:
    """Gini coefficient of values that are not negative.

    0 where all are alike, towards 1 where one has everything.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    total = ordered.sum()
    if total <= 0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * total))

"""Hubness: how evenly recommendations are spread over candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError

_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Hubness:
    """How evenly the top-k lists of one direction are spread over candidates.

    Attributes:
        k: Length of the lists.
        skewness: Skewness of the number of lists per candidate (Radovanović et al. 2010); 0 is
            even.
        never: Share of candidates that are in no list.
        gini: Gini coefficient of exposure, from 0 (equal) to 1.
        counts: [candidates] int64 number of lists that each candidate is in; with pools, of the
            candidates of pools with more than `k` of them.
    """

    k: int
    skewness: float
    never: float
    gini: float
    counts: Ints

    def __str__(self) -> str:
        return (
            f"{100 * self.never:.0f} % of candidates are in no top {self.k}; exposure Gini "
            f"{self.gini:.2f}, skewness {self.skewness:.1f}"
        )


def hubness(
    queries: Floats,
    candidates: Floats,
    *,
    k: int = 10,
    same: bool = False,
    pools: Sequence[tuple[Ints, Ints]] | None = None,
) -> Hubness:
    """Counts how often each candidate is among the top k of a query.

    Args:
        queries: [N, K] unit length.
        candidates: [M, K] unit length.
        k: Length of the lists, below M.
        same: Whether queries and candidates are the same people, row by row; a person is then never
            their own candidate.
        pools: Rows of the queries and of the candidates of each pool; lists are then made inside
            pools with more than k candidates, and of the people in these. None for one pool of all.

    Raises:
        ConfigurationError: A k below 1, or not below the number of candidates.
    """
    if pools is None:
        pools = [(np.arange(len(queries)), np.arange(len(candidates)))]
    pools = [(rows, columns) for rows, columns in pools if len(rows) and len(columns) > k]
    if k < 1 or not pools:
        raise ConfigurationError(
            f"`hubness(k=...)` must be at least 1 and below the number of candidates, "
            f"{len(candidates)}; got {k}."
        )
    counts = np.zeros(len(candidates), np.int64)
    for rows, columns in pools:
        others = candidates[columns].T
        for start in range(0, len(rows), _CHUNK_ROWS):
            scores = queries[rows[start : start + _CHUNK_ROWS]] @ others
            if same:
                row = np.arange(len(scores))
                scores[row, start + row] = -np.inf
            top = columns[np.argpartition(-scores, k - 1, axis=1)[:, :k]]
            counts += np.bincount(top.ravel(), minlength=len(candidates))
    counts = counts[np.unique(np.concatenate([columns for _, columns in pools]))]
    skewness = float(stats.skew(counts)) if np.ptp(counts) else 0.0
    return Hubness(k, skewness, float((counts == 0).mean()), gini(counts), counts)


def gini(values: Floats | Ints) -> float:
    """Gini coefficient of values ≥ 0: 0 if all are equal, close to 1 if one value holds the total.

    Args:
        values: [n].
    """
    ordered = np.sort(np.asarray(values, np.float64))
    total = ordered.sum()
    if total <= 0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * total))

"""The median rank, where ties make each query's rank a distribution and not a number.

The expected rank of each query is not enough: the median of expectations is not the median of the
ranks that random orders of tied candidates produce, in particular for people with several partners.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

from pairmatch.evaluation.ranks import Doubles

#: Points that stand for the distribution of one query's rank in resamples.
POINTS = 16
_EQUAL = 1e-9  # shares closer than this count as equal: they are computed from logarithms


def median_rank(ahead: Doubles, tied: Doubles, tied_partners: Doubles) -> float:
    """The median of the mixture of all queries' ranks, over all orders of tied candidates.

    Args:
        ahead: [Q] number of candidates that rank ahead of the best-ranked partner.
        tied: [Q] number of candidates in its tie, at least 1: the partner counts.
        tied_partners: [Q] number of partners in its tie, at least 1.

    Returns:
        The middle of all ranks r with P(rank ≤ r) = ½, or the first r with more than that.
    """
    cases, counts = np.unique(np.stack([ahead, tied, tied_partners]), axis=1, return_counts=True)

    def share(rank: int) -> float:
        return float(np.average(share_within(rank - cases[0], cases[1], cases[2]), weights=counts))

    last = int((cases[0] + cases[1]).max())
    lower = _first(last, lambda rank: share(rank) >= 0.5 - _EQUAL)
    upper = _first(last, lambda rank: share(rank) > 0.5 + _EQUAL)
    return (lower + upper) / 2


def rank_points(ahead: Doubles, tied: Doubles, tied_partners: Doubles) -> Doubles:
    """[Q, POINTS] ranks at the middles of equal shares of each query's distribution."""
    levels = (np.arange(POINTS) + 0.5) / POINTS
    low = np.zeros((len(ahead), POINTS))
    high = np.repeat(tied[:, None], POINTS, axis=1)
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        within = share_within(middle, tied[:, None], tied_partners[:, None]) >= levels
        low, high = np.where(within, low, middle), np.where(within, middle, high)
    return ahead[:, None] + high


def share_within(position: Doubles, tied: Doubles, tied_partners: Doubles) -> Doubles:
    """P(first of the tied partners ≤ position): 1 − C(tied − position, s) / C(tied, s)."""
    position, tied, partners = np.broadcast_arrays(position, tied, tied_partners)
    left = tied - np.clip(position, 0, tied)
    # Below `partners` no set of partners fits behind the position
    fits = left >= partners
    held = np.where(fits, left, partners)
    log_share = (
        gammaln(held + 1)
        - gammaln(held - partners + 1)
        - gammaln(tied + 1)
        + gammaln(tied - partners + 1)
    )
    several = np.where(fits, 1 - np.exp(log_share), 1.0)
    return np.where(partners == 1, 1 - left / tied, several)


def _first(last: int, holds: Callable[[int], bool]) -> int:
    """The first whole number from 1 to `last` for which a monotonic condition holds."""
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high

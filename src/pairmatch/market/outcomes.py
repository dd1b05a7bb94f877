"""What slates lead to: expected matches, and how evenly they fall on people.

The model is that of Tomita and Yokoyama (2024): everybody looks at place r of their slate with
probability v(r) and then likes who is there with their own probability; a match is a like from
both. Two people match only where each stands in the other's slate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.diagnostics.hubs import gini

Examination = Literal["inverse", "log"]
Chances = Callable[[Ints, Ints], tuple[Floats, Floats]]
_ROWS = 1024
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Outcome:
    """What slates lead to in expectation; each pair is (side a, side b).

    Attributes:
        matches: Expected number of matches.
        gini: Of exposure, how much a person is looked at: 0 where all are alike, towards 1 where
            one has everything.
        coverage: Share of people who stand in somebody's slate.
        envy: Mean number of people of one's own side in whose places in the other side's slates one
            would have more expected matches (Tomita and Yokoyama 2024).
        match_gini: Of people's expected matches.
    """

    matches: float
    gini: tuple[float, float]
    coverage: tuple[float, float]
    envy: tuple[float, float]
    match_gini: tuple[float, float]

    def __str__(self) -> str:
        def two(values: tuple[float, float], form: str) -> str:
            return " / ".join(format(value, form) for value in values)

        return (
            f"expected matches {self.matches:.1f}; a / b: exposure Gini {two(self.gini, '.3f')}, coverage "
            f"{two(self.coverage, '.1%')}, envy {two(self.envy, '.2f')}, Gini of matches {two(self.match_gini, '.3f')}"
        )


def examination(places: int, kind: Examination = "inverse") -> npt.NDArray[np.float64]:
    """[places] probability of looking at each place: 1 / r, or 1 / log2(r + 1)."""
    ranks = np.arange(1, places + 1)
    if kind not in ("inverse", "log"):
        raise ConfigurationError(f"`examination` is 'inverse' or 'log', got {kind!r}.")
    return 1 / ranks if kind == "inverse" else 1 / np.log2(ranks + 1)


def outcome(
    slates_a: Ints, slates_b: Ints, chances: Chances, *, examination_kind: Examination = "inverse"
) -> Outcome:
    """Expected matches, exposure, coverage and envy of everybody's slates.

    Args:
        slates_a: [N, k] int64 rows of side b that each of side a is shown, best first; −1 where
            there is nobody.
        slates_b: [M, l] rows of side a.
        chances: From rows of a and rows of b, [n] each, to the probabilities [n] that a likes b and
            that b likes a.
        examination_kind: How attention falls with the place.
    """
    n, m = len(slates_a), len(slates_b)
    looks_a, looks_b = _looks(slates_a, m, examination_kind), _looks(slates_b, n, examination_kind)
    # At the places of each side's own slates: likes of the one who looks, and of the one who is
    # looked at
    wanted_a, back_a = _with_chances(looks_a, chances)
    wanted_b, back_b = _with_chances(looks_b, lambda b, a: chances(a, b)[::-1])
    matched = wanted_a.multiply(wanted_b.T.tocsr()).tocsr()
    of_a, of_b = np.asarray(matched.sum(1)).ravel(), np.asarray(matched.sum(0)).ravel()
    seen_b, seen_a = np.asarray(looks_a.sum(0)).ravel(), np.asarray(looks_b.sum(0)).ravel()
    return Outcome(
        matches=float(of_a.sum()),
        gini=(gini(seen_a), gini(seen_b)),
        coverage=(float((seen_a > 0).mean()), float((seen_b > 0).mean())),
        envy=(
            _envy(wanted_a.multiply(back_a).tocsr(), looks_b, of_a),
            _envy(wanted_b.multiply(back_b).tocsr(), looks_a, of_b),
        ),
        match_gini=(gini(of_a), gini(of_b)),
    )


def _looks(slates: Ints, others: int, kind: Examination) -> csr_array:
    """[people, others]: how likely each looks at each."""
    there = slates >= 0
    weights = np.broadcast_to(examination(slates.shape[1], kind), slates.shape)
    rows = np.repeat(np.arange(len(slates)), there.sum(1))
    return csr_array((weights[there], (rows, slates[there])), shape=(len(slates), others))


def _with_chances(looks: csr_array, chances: Chances) -> tuple[csr_array, csr_array]:
    """Looks times the own chance to like, and the chance to be liked, at the same places."""
    there = looks.tocoo()
    row, column = there.coords
    own, back = chances(row.astype(np.int64), column.astype(np.int64))
    return (
        csr_array((there.data * own, (row, column)), shape=looks.shape),
        csr_array((np.asarray(back, np.float64), (row, column)), shape=looks.shape),
    )


def _envy(interest: csr_array, looks_back: csr_array, own: npt.NDArray[np.float64]) -> float:
    """Mean number of others in whose places one would have more matches."""
    count = 0
    for start in range(0, len(own), _ROWS):
        elsewhere = (interest[start : start + _ROWS] @ looks_back).tocoo()
        row, other = elsewhere.coords
        better = elsewhere.data > own[start + row] + _TOLERANCE
        count += int((better & (other != start + row)).sum())
    return count / len(own)


def assign(scores: Floats) -> Ints:
    """The one-to-one matching of the highest total score, exactly: the reference for small markets.

    Args:
        scores: [N, M] finite.

    Returns:
        [min(N, M), 2] int64 rows of a and of b.
    """
    return np.stack(
        linear_sum_assignment(np.asarray(scores, np.float64), maximize=True), axis=1
    ).astype(np.int64)

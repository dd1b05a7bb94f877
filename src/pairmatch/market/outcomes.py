"""Outcomes of slates: expected matches, and how evenly attention and matches are distributed.

The model is that of Tomita and Yokoyama (2024): each person examines position r of their slate with
probability v(r), and likes the person shown there with a probability of their own. A match is a
like in both directions, so two people can match only if each appears in the other's slate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from pairmatch.core.arrays import Floats, Ints, check_matrix
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.diagnostics.hubs import gini

Examination = Literal["inverse", "log"]
Chances = Callable[[Ints, Ints], tuple[Floats, Floats]]
_ROWS = 1024
_TOLERANCE = 1e-9
_MOST_PLACES = 100_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """Expected outcome of slates; tuples hold the values of side a and side b.

    Attributes:
        matches: Expected number of matches.
        gini: Gini coefficient of exposure, the expected number of views of a person: 0 if it is
            equal for all people, close to 1 if one person receives all views.
        coverage: Share of people who appear in at least one slate.
        envy: Mean number of people of the same side with whom a person would trade positions in the
            other side's slates, because they would have more expected matches there (Tomita and
            Yokoyama 2024).
        match_gini: Gini coefficient of people's expected matches.
    """

    matches: float
    gini: tuple[float, float]
    coverage: tuple[float, float]
    envy: tuple[float, float]
    match_gini: tuple[float, float]

    def __str__(self) -> str:
        def both(values: tuple[float, float], form: str) -> str:
            return " / ".join(format(value, form) for value in values)

        return (
            f"expected matches {self.matches:.1f}; a / b: exposure Gini "
            f"{both(self.gini, '.3f')}, coverage {both(self.coverage, '.1%')}, envy "
            f"{both(self.envy, '.2f')}, Gini of matches {both(self.match_gini, '.3f')}"
        )


def examination(places: int, kind: Examination = "inverse") -> npt.NDArray[np.float64]:
    """Probability of examining each position of a slate, [places]: 1 / r or 1 / log2(r + 1)."""
    is_whole = isinstance(places, int | np.integer) and not isinstance(places, bool)
    if not is_whole or not 0 <= places <= _MOST_PLACES:
        raise ConfigurationError(
            f"`examination(places=...)` must be a whole number from 0 to {_MOST_PLACES:,}, got "
            f"{places!r}."
        )
    ranks = np.arange(1, places + 1)
    if kind not in ("inverse", "log"):
        raise ConfigurationError(f"`examination` must be 'inverse' or 'log', got {kind!r}.")
    return 1 / ranks if kind == "inverse" else 1 / np.log2(ranks + 1)


def outcome(
    slates_a: Ints, slates_b: Ints, chances: Chances, *, examination_kind: Examination = "inverse"
) -> Outcome:
    """Expected matches, exposure, coverage and envy of all people's slates.

    Args:
        slates_a: [N, k] int64 rows of side b shown to each person of side a, best first; −1 for
            empty positions.
        slates_b: [M, l] int64 rows of side a shown to each person of side b.
        chances: Function of rows of a and rows of b, [n] each; returns the probabilities [n] that a
            likes b, and that b likes a.
        examination_kind: How the probability of examination falls with the position.

    Raises:
        ConfigurationError: Slates are not rows of the other side, show somebody twice, or are
            empty; or chances are not probabilities.
    """
    slates_a = _checked_slates("slates_a", slates_a, slates_b)
    slates_b = _checked_slates("slates_b", slates_b, slates_a)
    people_a = len(slates_a)
    people_b = len(slates_b)
    looks_a = _looks(slates_a, people_b, examination_kind)
    looks_b = _looks(slates_b, people_a, examination_kind)
    likes_a, liked_a = _with_chances(looks_a, chances)
    likes_b, liked_b = _with_chances(looks_b, lambda b, a: chances(a, b)[::-1])
    matches = likes_a.multiply(likes_b.T.tocsr()).tocsr()
    matches_a = _sums(matches, axis=1)
    matches_b = _sums(matches, axis=0)
    exposure_a = _sums(looks_b, axis=0)
    exposure_b = _sums(looks_a, axis=0)
    return Outcome(
        matches=float(matches_a.sum()),
        gini=(gini(exposure_a), gini(exposure_b)),
        coverage=(float((exposure_a > 0).mean()), float((exposure_b > 0).mean())),
        envy=(
            _envy(likes_a.multiply(liked_a).tocsr(), looks_b, matches_a),
            _envy(likes_b.multiply(liked_b).tocsr(), looks_a, matches_b),
        ),
        match_gini=(gini(matches_a), gini(matches_b)),
    )


def assign(scores: Floats) -> Ints:
    """The one-to-one matching with the highest total score, exact; for small markets.

    Args:
        scores: [N, M] finite.

    Returns:
        [min(N, M), 2] int64 rows of a and of b.
    """
    matrix = check_matrix("scores", scores)
    return np.stack(linear_sum_assignment(matrix, maximize=True), axis=1).astype(np.int64)


def _checked_slates(name: str, slates: Ints, others: Ints) -> Ints:
    """Slates as rows of the other side, [n, k] int64."""
    array = np.asarray(slates)
    if array.ndim != 2 or not len(array) or array.dtype.kind not in "iu":
        raise ConfigurationError(
            f"`{name}` must be whole numbers [people, places] with at least one person, got "
            f"{array.dtype} {list(array.shape)}."
        )
    if array.size and not ((array >= -1) & (array < len(others))).all():
        raise ConfigurationError(
            f"`{name}` must hold rows of the other side, from 0 to {len(others) - 1}, or -1 for "
            f"empty places; got {array.min()} to {array.max()}."
        )
    ordered = np.sort(array, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ConfigurationError(f"`{name}` shows a person twice in one slate.")
    return array.astype(np.int64)


def _looks(slates: Ints, candidates: int, kind: Examination) -> csr_array:
    """Probability that each person examines each candidate: [people, candidates]."""
    filled = slates >= 0
    weights = np.broadcast_to(examination(slates.shape[1], kind), slates.shape)
    rows = np.repeat(np.arange(len(slates)), filled.sum(1))
    return csr_array((weights[filled], (rows, slates[filled])), shape=(len(slates), candidates))


def _with_chances(looks: csr_array, chances: Chances) -> tuple[csr_array, csr_array]:
    """Probability that a person examines and likes a candidate, and that the candidate likes back.

    Both have the sparsity of `looks`.
    """
    entries = looks.tocoo()
    row, column = entries.coords
    likes, liked = (
        _checked_chances(part, len(row))
        for part in chances(row.astype(np.int64), column.astype(np.int64))
    )
    return (
        csr_array((entries.data * likes, (row, column)), shape=looks.shape),
        csr_array((np.asarray(liked, np.float64), (row, column)), shape=looks.shape),
    )


def _checked_chances(values: Floats, count: int) -> Floats:
    array = np.asarray(values)
    if (
        array.shape != (count,)
        or array.dtype.kind not in "fiu"
        or not ((array >= 0) & (array <= 1)).all()
    ):
        raise ConfigurationError(
            f"`chances` must return two arrays of {count} probabilities in [0, 1]."
        )
    return array


def _sums(matrix: csr_array, axis: int) -> npt.NDArray[np.float64]:
    return np.asarray(matrix.sum(axis)).ravel()


def _envy(interest: csr_array, looks_back: csr_array, matches: npt.NDArray[np.float64]) -> float:
    """Mean number of people in whose positions a person would have more expected matches."""
    count = 0
    for start in range(0, len(matches), _ROWS):
        swapped = (interest[start : start + _ROWS] @ looks_back).tocoo()
        row, column = swapped.coords
        better = swapped.data > matches[start + row] + _TOLERANCE
        count += int((better & (column != start + row)).sum())
    return count / len(matches)

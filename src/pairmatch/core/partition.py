"""Partition of people who stand in several pairs, so that parts share no people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Floats, Ints

_DRAWS = 64
_GOOD_ENOUGH = 0.02
_GOLDEN_RATIO = (np.sqrt(5) - 1) / 2


def partition_people(pairs: Ints, units: int, sizes: Sequence[float], *, seed: int) -> Ints:
    """Parts people at random, so that the pairs inside the parts have about the given proportions.

    A pair is inside a part if both of its people are; all other pairs cross. A part with a share q
    of the people holds about q² of the pairs, so people are parted in proportion to the square
    roots of the sizes. People of equal degree are spread evenly over the parts, so that popular
    ones do not all end up in one, and the best of several draws is returned.

    Args:
        pairs: [P, 2] int64 the two units of each pair; a unit is a person, or a household or other
            group that must not be separated.
        units: Number of units.
        sizes: Relative number of pairs wanted in each part, at least 0.
        seed: Seed for the draws; equal seeds give equal parts.

    Returns:
        [units] int64 number of each unit's part.
    """
    wanted = np.asarray(sizes, np.float64) / np.sum(sizes)
    roots = np.sqrt(wanted)
    bounds = np.cumsum(roots / roots.sum())[:-1]
    degrees = np.stack([np.bincount(side, minlength=units) for side in pairs.T])
    sides = (degrees > 0).T @ np.array([1, 2])  # 1 side a, 2 side b, 3 both: of a group
    rng = np.random.default_rng(seed)
    best = np.zeros(units, np.int64)
    least = np.inf
    for _ in range(_DRAWS):
        parts = _draw(rng, degrees.sum(0), sides, bounds)
        deviation = _deviation(pairs, parts, wanted)
        if deviation < least:
            best, least = parts, deviation
        if least <= _GOOD_ENOUGH:
            break
    return best


def partition_pools(counts: Ints, sizes: Sequence[float], *, seed: int) -> Ints:
    """Assigns a few blocks of unequal size, such as events, to parts at random.

    Each goes to the part that is furthest from full, in random order; the first of several draws in
    which every part is within a fifth of its size is returned, or else the best. Assigning the
    largest first would give nearly the same parts for every seed.

    Args:
        counts: [blocks] number of matches in each.
        sizes: Number of matches wanted in each part.
        seed: Seed for the draws; equal seeds give equal parts.

    Returns:
        [blocks] int64 number of each block's part.
    """
    wanted = np.asarray(sizes, np.float64)
    rng = np.random.default_rng(seed)
    best = np.zeros(len(counts), np.int64)
    least = np.inf
    for _ in range(_DRAWS):
        parts = np.zeros(len(counts), np.int64)
        missing = wanted.copy()
        for block in rng.permutation(len(counts)):
            parts[block] = np.argmax(missing / np.maximum(wanted, 1e-9))
            missing[parts[block]] -= counts[block]
        asked = wanted > 0
        deviation = float(np.max(np.abs(missing[asked]) / wanted[asked]))
        if deviation < least:
            best, least = parts, deviation
        if least <= 1 / 5:
            break
    return best


def within_a_fifth(counts: Sequence[float] | Ints, wanted: Sequence[float] | Floats) -> bool:
    """Whether every part is within a fifth of its size, or within one pair of it."""
    missing = np.abs(np.asarray(counts) - np.asarray(wanted))
    return bool(np.all(missing <= np.maximum(1, np.asarray(wanted) / 5)))


def _draw(rng: np.random.Generator, degrees: Ints, sides: Ints, bounds: npt.ArrayLike) -> Ints:
    """Assigns units in the order of their degree, by an evenly spread sequence."""
    parts = np.empty(len(degrees), np.int64)
    order = np.lexsort([rng.random(len(degrees)), -degrees])
    for side in np.unique(sides):
        chosen = order[sides[order] == side]
        spread = (rng.random() + _GOLDEN_RATIO * np.arange(len(chosen))) % 1
        parts[chosen] = np.searchsorted(bounds, spread, side="right")
    return parts


def _deviation(pairs: Ints, parts: Ints, wanted: npt.NDArray[np.float64]) -> float:
    """Largest relative difference between the share of pairs that a part has and should have."""
    first, second = parts[pairs.T]
    inside = np.bincount(first[first == second], minlength=len(wanted))
    if not inside.sum():
        return np.inf
    asked = wanted > 0
    return float(np.max(np.abs(inside[asked] / inside.sum() / wanted[asked] - 1)))

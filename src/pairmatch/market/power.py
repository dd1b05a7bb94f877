"""How long an A/B test of two rankings has to run before it can show a difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.types import Side
from pairmatch.data import Pairs

_WEEK_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ABTestPlan:
    """What an A/B test of two rankings needs; each person is in one arm for the whole test.

    Attributes:
        rate: Share of shown pairs that became matches.
        lift: Relative change of the rate to be found.
        power: Probability that a test finds it.
        level: Two-sided level of the test.
        people: Number of people per arm: half of those of the log.
        pairs_per_week: Shown pairs of a person per week.
        correlation: Intraclass correlation of the outcomes of one person.
        design_effect: Factor by which the variance is larger than that of independent pairs, at the
            end of the test; infinite if there is no end.
        pairs: Shown pairs per arm at the end of the test; infinite if there is no end.
        weeks: Length of the test; infinite if these people cannot show the difference, however long
            it runs.
    """

    rate: float
    lift: float
    power: float
    level: float
    people: int
    pairs_per_week: float
    correlation: float
    design_effect: float
    pairs: float
    weeks: float

    def __str__(self) -> str:
        change = f"{self.lift:+.0%} of a match rate of {self.rate:.2%}"
        chances = f"power {self.power:.0%}, level {self.level:.0%}"
        if math.isinf(self.weeks):
            return (
                f"{self.people:,} people per arm cannot show {change} ({chances}), however long "
                "the test runs: people differ too much. Test with more people, or look for a "
                "larger change."
            )
        return (
            f"{self.weeks:.1f} weeks show {change} ({chances}): {self.people:,} people per arm "
            f"with {self.pairs_per_week:.1f} shown pairs a week each, design effect "
            f"{self.design_effect:.2f}."
        )


def plan_test(
    pairs: Pairs,
    *,
    lift: float,
    side: Side = "a",
    power: float = 0.8,
    level: float = 0.05,
) -> ABTestPlan:
    """Plans an A/B test from the log of an app: how many weeks a difference needs.

    Half of the people of one side see slates of one ranking, half of the other. The outcomes of one
    person are alike, so that pairs do not count as independent: the variance is larger by the
    design effect 1 + ((1 + v²) m − 1) ρ, with m pairs per person, their coefficient of variation v,
    and the intraclass correlation ρ (Donner and Klar 2000; Eldridge, Ashby and Kerry 2006). As the
    people stay the same, m grows with every week, and the gain of a week shrinks.

    Args:
        pairs: Shown pairs with their times, those without a match included.
        lift: Relative change of the match rate to be found, such as 0.1 for 10 % more matches.
        side: Side whose people are assigned to the arms.
        power: Probability that the test finds the change, above `level`, below 1.
        level: Two-sided level of the test, in (0, 1).

    Raises:
        ConfigurationError: A value is out of range, or the changed rate is not in (0, 1).
        DataError: Pairs have no times or span no time, or there is no match, nothing but matches,
            or no person with two pairs.
    """
    if side not in ("a", "b"):
        raise ConfigurationError(f"`plan_test(side=...)` must be 'a' or 'b', got {side!r}.")
    matched, person = _outcomes(pairs, side)
    sizes = np.bincount(person).astype(float)
    rate = float(matched.mean())
    needed = pairs_per_arm(rate, rate * (1 + lift), power=power, level=level)
    correlation = intraclass_correlation(matched, person)
    people = len(sizes) // 2
    per_week = float(sizes.mean()) / _weeks(pairs)
    spread = 1 + float(sizes.var()) / float(sizes.mean()) ** 2
    # needed (1 + (spread per_week w − 1) ρ) = people per_week w, solved for w
    gain = per_week * (people - needed * correlation * spread)
    length = needed * (1 - correlation) / gain if gain > 0 else math.inf
    effect = 1 + (spread * per_week * length - 1) * correlation if correlation else 1.0
    return ABTestPlan(
        rate=rate,
        lift=lift,
        power=power,
        level=level,
        people=people,
        pairs_per_week=per_week,
        correlation=correlation,
        design_effect=effect,
        pairs=needed * effect,
        weeks=length,
    )


def pairs_per_arm(rate: float, other: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """Number of independent pairs per arm with which a test tells two rates apart.

    The test of two proportions without continuity correction (Fleiss, Levin and Paik 2003, section
    4.2).

    Args:
        rate: Match rate of one arm, in (0, 1).
        other: Match rate of the other arm.
        power: Probability that the test finds the difference, above `level`, below 1.
        level: Two-sided level of the test, in (0, 1).

    Raises:
        ConfigurationError: A value is out of range, or the rates are equal.
    """
    if not (0 < rate < 1 and 0 < other < 1 and rate != other):
        raise ConfigurationError(
            f"The match rates of the arms must differ and be in (0, 1), got {rate} and {other}."
        )
    if not 0 < level < power < 1:
        raise ConfigurationError(
            f"A plan needs 0 < level < power < 1, got level {level} and power {power}."
        )
    mean = (rate + other) / 2
    equal = NormalDist().inv_cdf(1 - level / 2) * math.sqrt(2 * mean * (1 - mean))
    different = NormalDist().inv_cdf(power) * math.sqrt(rate * (1 - rate) + other * (1 - other))
    return float(((equal + different) / (rate - other)) ** 2)


def intraclass_correlation(values: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Correlation of two values of one group, by analysis of variance, at least 0.

    Args:
        values: [n] values, such as 1 for a match and 0 for none.
        groups: [n] int64 numbers of groups from 0, such as those of people.
    """
    numbers = np.asarray(values, float)
    rows = np.asarray(groups)
    sizes = np.bincount(rows).astype(float)
    means = np.bincount(rows, numbers) / sizes
    count, total = len(sizes), sizes.sum()
    between = (sizes * (means - numbers.mean()) ** 2).sum() / (count - 1)
    within = ((numbers - means[rows]) ** 2).sum() / (total - count)
    size = (total - (sizes**2).sum() / total) / (count - 1)
    variance = between + (size - 1) * within
    return float(max(0.0, (between - within) / variance)) if variance > 0 else 0.0


def _outcomes(pairs: Pairs, side: Side) -> tuple[npt.NDArray[np.float64], Ints]:
    """[P] 1 for each match and 0 for other pairs, and [P] number of the person of a side."""
    matched = np.array([pair.outcome == "match" for pair in pairs.pairs], float)
    names, person = np.unique([getattr(pair, side) for pair in pairs.pairs], return_inverse=True)
    if not 0 < matched.mean() < 1 or not 2 <= len(names) < len(person):
        raise DataError(
            f"A test cannot be planned from {len(person)} shown pairs of {len(names)} people, "
            f"{int(matched.sum())} of them matches: the log must hold matches, other pairs, and "
            "people with several pairs."
        )
    return matched, person


def _weeks(pairs: Pairs) -> float:
    times: list[Any] = [pair.time for pair in pairs.pairs if pair.time is not None]
    seconds = (max(times) - min(times)).total_seconds() if times else 0.0
    if len(times) < len(pairs.pairs) or seconds <= 0:
        raise DataError(
            f"A test needs to know when pairs were shown: {len(times)} of {len(pairs.pairs)} pairs "
            f"have a time, and they span {seconds:.0f} seconds."
        )
    return seconds / _WEEK_SECONDS

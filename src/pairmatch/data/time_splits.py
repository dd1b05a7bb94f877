"""Splits by time, and by a file of test pairs: figures on new people, and on seen people apart."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data.checking import check_same_sides
from pairmatch.data.splits import SplitPairs, is_match, listed, split_pairs, units_of_pairs

if TYPE_CHECKING:
    from pairmatch.data.pairs import Pairs

_LEAST_VALIDATION = 20
_Flags = npt.NDArray[np.bool_]


def split_pairs_by_time(
    pairs: Pairs, before: str | date | datetime, validation: float
) -> SplitPairs:
    """Implementation of [`Pairs.split_by_time`][pairmatch.data.pairs.Pairs.split_by_time]."""
    if not 0 <= validation < 1:
        raise ConfigurationError(
            f"`split_by_time(validation=...)` must be in [0, 1), got {validation}."
        )
    moment = parse_time(before)
    times = _times(pairs)
    matched = is_match(pairs)
    earlier = times < moment.timestamp()
    if not (matched & earlier).any() or not (matched & ~earlier).any():
        dated = sorted(pair.time for pair in pairs.pairs if pair.outcome == "match" and pair.time)
        span = f"from {dated[0].isoformat()} to {dated[-1].isoformat()}" if dated else "none"
        raise DataError(
            f"A split by time needs matches before {moment.isoformat()} and later ones; the "
            f"matches are: {span}."
        )
    units = units_of_pairs(pairs)
    validating = np.zeros(len(times), bool)
    if validation:
        cut = np.quantile(times[matched & earlier], 1 - validation, method="higher")
        is_recent = earlier & (times >= cut)
        validating = is_recent & ~_touches(units, earlier & ~is_recent)
        if (matched & validating).sum() < _LEAST_VALIDATION:
            validating[:] = False  # too few to stop training by: they train
    training = earlier & ~_touches(units, validating)
    testing = ~earlier & ~_touches(units, earlier)
    parts = [pairs.subset(np.flatnonzero(part)) for part in (training, validating, testing)]
    counts = [len(part) for part in parts]
    seen = int((matched & ~earlier & ~testing).sum())
    left_out = int((matched & earlier).sum()) - counts[0] - counts[1]
    reason = (
        f"Split by time at {moment.isoformat()}: {listed(counts)} matches to train, validate and "
        f"test. Those to validate and to test are between new people. {seen:,} later matches with "
        f"a seen person are evaluated apart; {left_out:,} earlier ones, between people to train "
        "and to validate on, are left out."
    )
    return SplitPairs(
        parts,
        by="time",
        crossing=pairs.subset(np.flatnonzero(~(training | validating | testing))),
        reason=reason,
        known=pairs.subset(np.flatnonzero(earlier)),
        with_seen=pairs.subset(np.flatnonzero(~earlier)),
    )


def split_before_test(pairs: Pairs, test: Pairs, *, validation: float, seed: int) -> SplitPairs:
    """Training and validation pairs of one file, test pairs of another.

    The test part holds pairs of two people who are not in `pairs`; test pairs with people of
    `pairs` are in `with_seen` too.

    Args:
        pairs: Pairs to train and validate on.
        test: Pairs to test on.
        validation: Share of the matches for validation, in [0, 1).
        seed: Seed for the split into training and validation pairs.

    Raises:
        ConfigurationError: `sides` differ, or the share is out of range.
        DataError: A part is empty, or a person changes sides.
    """
    if pairs.sides != test.sides:
        raise ConfigurationError(
            f"Training and test pairs must have equal `sides`, got {pairs.sides} and {test.sides}."
        )
    check_same_sides(test, pairs)
    split = split_pairs(pairs, 1 - validation, validation, by=None, seed=seed)
    groups = {pair.group for pair in pairs.pairs if pair.group is not None}
    new = [
        row
        for row, pair in enumerate(test.pairs)
        if not (pair.a in pairs.profiles or pair.b in pairs.profiles or pair.group in groups)
    ]
    fresh = test.subset(new)
    shared = len(test.profiles.keys() & pairs.profiles.keys())
    reason = (
        f"{split.reason} In the file of test pairs, {len(fresh):,} of {len(test):,} matches are "
        f"between new people; {shared:,} of {len(test.profiles):,} people are in the training file "
        "and are evaluated apart."
    )
    return SplitPairs(
        [split[0], split[1], fresh],
        by=split.by,
        crossing=split.crossing.joined(test.subset(np.setdiff1d(np.arange(len(test.pairs)), new))),
        reason=reason,
        known=pairs,
        with_seen=test,
    )


def parse_time(value: str | date | datetime) -> datetime:
    """A moment with a time zone; a date is its first moment, and without a zone it is UTC.

    Raises:
        ConfigurationError: The text is not a date or time in ISO 8601.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ConfigurationError(
                f"`before` must be a date or time in ISO 8601, such as 2026-10-01 or "
                f"2026-10-01T18:00+02:00, got {value!r}."
            ) from error
    if not isinstance(value, date) or value != value:  # pandas' NaT is a date, too
        raise ConfigurationError(
            f"`before` must be a date, a datetime or a text in ISO 8601, got {value!r}."
        )
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _times(pairs: Pairs) -> npt.NDArray[np.float64]:
    """[number of pairs] float64 seconds since 1970."""
    undated = [pair for pair in pairs.pairs if pair.time is None]
    if undated:
        raise DataError(
            f"A split by time needs the time of every pair: {len(undated):,} of "
            f"{len(pairs.pairs):,} have none, first {undated[0].a!r}, {undated[0].b!r}. "
            "Fill in the column `time`, or leave these pairs out."
        )
    return np.array([pair.time.timestamp() for pair in pairs.pairs if pair.time is not None])


def _touches(units: Ints, chosen: _Flags) -> _Flags:
    """Which pairs have a person of the chosen pairs."""
    present = np.zeros(int(units.max(initial=-1)) + 1, bool)
    present[units[chosen]] = True
    either: _Flags = present[units[:, 0]] | present[units[:, 1]]
    return either

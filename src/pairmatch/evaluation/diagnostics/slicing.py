"""Metrics by an attribute of the query person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.intervals import Metrics, summarize
from pairmatch.evaluation.query_table import QueryTable

SMALL_SLICE = 30
#: Slices of fewer people are never made: they would be figures, and facts, of single persons.
SMALLEST_SLICE = 10
_MOST_VALUES = 20  # words; more are names, addresses or free text
_DIGITS = 4  # of the bounds of ranges: whole numbers such as phone numbers stand for a person


@dataclass(frozen=True, slots=True)
class Slice:
    """Metrics of the query people who share a value of an attribute.

    Attributes:
        attribute: Name of the attribute.
        value: The value, or a range of numbers such as `20 to 34`.
        metrics: Metrics over the queries of these people.
        small: Whether there are fewer than 30 people, too few to conclude much.
    """

    attribute: str
    value: str
    metrics: Metrics
    small: bool


def slices(
    result: CrossValidation,
    learner: str,
    attribute: str,
    values_a: Sequence[Any],
    values_b: Sequence[Any] | None = None,
    *,
    bins: int = 4,
    resamples: int = 1000,
) -> list[Slice]:
    """Metrics of a learner by an attribute of the query person, with intervals.

    Slices of fewer than 10 people are left out, and attributes with more than 20 different words
    have none, so that no figure is about a single person and no name becomes a heading.

    Args:
        result: Result of `cross_validate`.
        learner: One of its learners.
        attribute: Name of the attribute.
        values_a: Value of each person of side a, in the order of the features; None if unknown.
        values_b: Value of each person of side b; by default those of `values_a`, as in one-sided
            sets.
        bins: Number of ranges of a numeric attribute with more distinct values than this; they are
            cut at the quantiles.
        resamples: Number of bootstrap resamples of the intervals.

    Raises:
        ConfigurationError: An unknown learner, or fewer values than people.
    """
    table = result.table(learner)
    sides = (list(values_a), list(values_a if values_b is None else values_b))
    names = np.array(_slice_names(_query_values(table, attribute, sides), bins), object)
    parts = []
    for name in sorted({name for name in names if name is not None}, key=_natural_order):
        rows = table.select(names == name)
        if rows.people < SMALLEST_SLICE:
            continue
        metrics = summarize(
            rows, resamples=resamples, confidence=result.confidence, seed=result.seed
        )
        parts.append(Slice(attribute, name, metrics, rows.people < SMALL_SLICE))
    return parts


def _query_values(
    table: QueryTable, attribute: str, sides: tuple[list[Any], list[Any]]
) -> list[Any]:
    """The value of each row's query person."""
    queries = table["query"]
    directions = table["direction"]
    for direction, values in enumerate(sides):
        needed = queries[directions == direction].max(initial=-1) + 1
        if len(values) < needed:
            raise ConfigurationError(
                f"The values of {attribute!r} must be one per person of side {'ab'[direction]}: "
                f"got {len(values)} for at least {needed} people."
            )
    rows = zip(directions.tolist(), queries.tolist(), strict=True)
    return [sides[direction][query] for direction, query in rows]


def _slice_names(values: Sequence[Any], bins: int) -> list[str | None]:
    """The slice of each value: the value itself, or its range; None if unknown."""
    present = [value for value in values if not _is_unknown(value)]
    numeric = bool(present) and all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool)
        for value in present
    )
    if not numeric and len({str(value) for value in present}) > _MOST_VALUES:
        return [None] * len(values)
    if not numeric or len(set(present)) <= bins:
        return [None if _is_unknown(value) else str(value) for value in values]
    cuts = np.unique(np.quantile(present, np.linspace(0, 1, bins + 1)))[1:-1]
    bin_of = {value: int(np.searchsorted(cuts, value, side="right")) for value in set(present)}
    members: dict[int, list[Any]] = {}
    for value, index in bin_of.items():
        members.setdefault(index, []).append(value)
    # A range is named by the values in it, so that no two ranges share a bound
    names = {
        index: f"{_rounded(min(held))} to {_rounded(max(held))}" for index, held in members.items()
    }
    return [None if _is_unknown(value) else names[bin_of[value]] for value in values]


def _rounded(value: float) -> str:
    return f"{float(f'{value:.{_DIGITS}g}'):g}"


def _is_unknown(value: Any) -> bool:
    return value is None or value != value  # NaN differs from itself


def _natural_order(name: str) -> tuple[int, float, str]:
    """Sort key: numbers by value, then words."""
    start = name.split(" to ")[0]
    try:
        return 0, float(start), name
    except ValueError:
        return 1, 0.0, name

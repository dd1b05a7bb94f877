"""Metrics by a value of the person who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import CrossValidation, line
from pairmatch.evaluation.intervals import Metrics

SMALL_SLICE = 30


@dataclass(frozen=True, slots=True)
class Slice:
    """Metrics of the people who share a value; `small` where they are too few to say much."""

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
    """Metrics by a value of the person who asks, with intervals.

    Args:
        result: Of cross-validation.
        learner: One of its learners.
        attribute: Name, for the table.
        values_a: One per row of side a; None where it is not known.
        values_b: One per row of side b; the same as `values_a` in one-sided sets.
        bins: Numbers with more different values than this are cut at their quantiles.
        resamples: Of intervals.

    Raises:
        ConfigurationError: Values that do not reach as far as the rows of the people.
    """
    index = result.index(learner)
    sides = (list(values_a), list(values_a if values_b is None else values_b))
    queries, directions = result.columns["query"], result.columns["direction"]
    for direction, known in enumerate(sides):
        if len(known) <= queries[directions == direction].max(initial=-1):
            raise ConfigurationError(
                f"The values of {attribute!r} must be one per person of side {'ab'[direction]}."
            )
    own = [sides[d][q] for d, q in zip(directions.tolist(), queries.tolist(), strict=True)]
    names = _labels(own, bins)
    found = []
    for name in sorted({n for n in names if n is not None}, key=_natural):
        rows = np.array([n == name for n in names])
        people = len(np.unique(queries[rows] * 2 + directions[rows]))
        figures = line(
            result.values[index][rows],
            result.columns["component"][rows],
            result.ks,
            resamples=resamples,
            confidence=result.confidence,
            seed=result.seed,
        )
        found.append(Slice(attribute, name, figures, people < SMALL_SLICE))
    return found


def _labels(values: Sequence[Any], bins: int) -> list[str | None]:
    known = [v for v in values if v is not None and v == v]
    numeric = bool(known) and all(
        isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in known
    )
    if not numeric or len(set(known)) <= bins:
        return [None if v is None or v != v else str(v) for v in values]
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))[1:-1]
    bin_of = {v: int(np.searchsorted(cuts, v, side="right")) for v in set(known)}
    inside: dict[int, list[Any]] = {}
    for v, own in bin_of.items():
        inside.setdefault(own, []).append(v)
    # Named by the values that are there: no two bins share an end
    names = {own: f"{min(found):g} to {max(found):g}" for own, found in inside.items()}
    return [None if v is None or v != v else names[bin_of[v]] for v in values]


def _natural(name: str) -> tuple[int, float, str]:
    head = name.split(" to ")[0]
    try:
        return 0, float(head), name
    except ValueError:
        return 1, 0.0, name

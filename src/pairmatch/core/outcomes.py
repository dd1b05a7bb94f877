"""Pairs sorted by outcome, and what an outcome says about the decisions of both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pairmatch.core.arrays import Ints, check_matches, positions_of
from pairmatch.core.decisions import NO, UNKNOWN, YES, Decisions
from pairmatch.core.errors import ConfigurationError


def sort_by_outcome(
    decisions: Decisions | None,
    matches: Ints | Sequence[tuple[int, int]] | None,
    rejected: Ints | Sequence[tuple[int, int]] | None,
    people: tuple[int, int | None],
) -> tuple[Decisions, tuple[int, int]]:
    """Decisions in the order of `PairedFeatures`: matches, rejections, open pairs.

    What the outcome of a pair says about its decisions is filled in.

    Args:
        decisions: What each side said; None if only matches and rejections are known.
        matches: [P, 2] pairs in which both said yes, in addition to those of `decisions`.
        rejected: [R, 2] pairs in which either person declined.
        people: Number of people on sides a and b; None for side b of a one-sided set.

    Returns:
        The decisions, and the positions at which the matches and the rejected pairs end.

    Raises:
        ConfigurationError: Rows do not exist, the decisions on a pair contradict its outcome, or
            there is neither a match nor a yes of one side.
    """
    given = Decisions.of((), (), ()) if decisions is None else decisions
    both = given.pairs[(given.a == YES) & (given.b == YES)]
    refused = given.pairs[(given.a == NO) | (given.b == NO)]
    matched = _joined(matches, both)
    if len(matched) or not (np.any(given.a == YES) or np.any(given.b == YES)):
        matched = check_matches(matched, *people)
    declined = _joined(rejected, refused)
    if len(declined):
        declined = check_matches(declined, *people)
    closed = np.concatenate([matched, declined])
    opened = given.pairs[positions_of(closed, given.pairs) < 0]
    if len(opened):
        opened = check_matches(opened, *people)
    pairs = np.concatenate([closed, opened])
    a, b = (np.full(len(pairs), UNKNOWN, np.int8) for _ in range(2))
    positions = positions_of(pairs, given.pairs)
    a[positions], b[positions] = given.a, given.b
    number = np.arange(len(pairs))
    is_match = number < len(matched)
    is_rejected = ~is_match & (number < len(closed))
    contradicted = is_match & ((a == NO) | (b == NO)) | is_rejected & (a == YES) & (b == YES)
    if decisions is not None:
        contradicted |= is_match & (positions_of(declined, pairs) >= 0)
    if contradicted.any():
        raise ConfigurationError(
            f"`decisions` contradict `matches` or `rejected`: {pairs[contradicted][:5].tolist()}."
        )
    a[is_match] = b[is_match] = YES
    a[is_rejected & (a == UNKNOWN) & (b == YES)] = NO
    b[is_rejected & (b == UNKNOWN) & (a == YES)] = NO
    return Decisions(pairs, a, b), (len(matched), len(closed))


def _joined(given: Ints | Sequence[tuple[int, int]] | None, more: Ints) -> Ints:
    """[pairs, 2] those given, followed by more; unchecked if there are none."""
    if given is None or not len(given):
        return more
    return np.concatenate([given, more]) if len(more) else np.asarray(given)

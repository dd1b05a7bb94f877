"""Targets of an evaluation: a match, or the yes of one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from pairmatch.core.arrays import positions_of
from pairmatch.core.decisions import NO, UNKNOWN, YES, Decisions
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.paired_features import PairedFeatures, Part
from pairmatch.core.types import Target
from pairmatch.evaluation.ranks import PartnerRanks

#: Direction of the queries that a target asks about; None for both.
DIRECTION_OF: dict[Target, int | None] = {"match": None, "a_likes": 0, "b_likes": 1}


def aim_at(data: PairedFeatures, target: Target) -> PairedFeatures:
    """The same people and pairs, with the target as the match and its opposite as the rejection.

    For `a_likes`, a yes of side a is a match, a no is a rejection, and everything else is open.

    Args:
        data: Features and decisions of two sides.
        target: What is predicted; `match` returns the data unchanged.

    Raises:
        ConfigurationError: The target is unknown, likes are asked for in a one-sided set, or no
            pair has the target.
    """
    if target not in get_args(Target):
        raise ConfigurationError(unknown_name("target", str(target), get_args(Target)))
    if target == "match":
        if not len(data):
            raise ConfigurationError(
                "There is no match to find: give matches, or evaluate the yes of one side "
                "(target='a_likes' or 'b_likes', --target)."
            )
        return data
    if data.one_sided:
        raise ConfigurationError(
            f"target={target!r} needs two sides: one-sided sets are evaluated on matches."
        )
    decisions = data.decisions
    said = decisions.a if target == "a_likes" else decisions.b
    order = np.concatenate([np.flatnonzero(said == answer) for answer in (YES, NO, UNKNOWN)])
    number_of_yes = int((said == YES).sum())
    if not number_of_yes:
        raise ConfigurationError(
            f"target={target!r} needs at least one pair in which side {target[0]} said yes: give "
            f"the column `{target}`, or evaluate target='match'."
        )
    first = said[order]
    aimed = Decisions(
        decisions.pairs[order], first, np.where(first == YES, YES, UNKNOWN).astype(np.int8)
    )
    return replace(
        data,
        decisions=aimed,
        ends=(number_of_yes, number_of_yes + int((said == NO).sum())),
        decision_components=data.decision_components[order],
        pools=None if data.pools is None else data.pools.of_pairs(aimed.pairs),
    )


def part_of_data(data: PairedFeatures, aimed: PairedFeatures, part: Part) -> Part:
    """The part of a set that holds the pairs of a part of the set aimed at a target."""
    pairs = aimed.decisions.pairs[aimed.positions(part)]
    positions = np.sort(positions_of(data.decisions.pairs, pairs))
    matches, rejected, opened = np.split(positions, np.searchsorted(positions, data.ends))
    return Part(matches, rejected - data.ends[0], opened - data.ends[1])


def count_of_target(data: PairedFeatures, part: Part | None, target: Target) -> int:
    """Number of matches, or of pairs with the yes of a side, in a part, or in the whole set."""
    if target == "match":
        return len(data if part is None else part)
    said = data.decisions.a if target == "a_likes" else data.decisions.b
    return int(np.sum((said if part is None else said[data.positions(part)]) == YES))


def has_answers(data: PairedFeatures) -> bool:
    """Whether more is known than who matched and who was rejected: likes, or pools."""
    return data.decisions.directional or data.pools is not None


def of_target(ranks: Sequence[PartnerRanks], target: Target) -> list[PartnerRanks]:
    """The ranks of both directions without the queries that a target does not ask about."""
    asked = DIRECTION_OF[target]
    if asked is None:
        return list(ranks)
    empty = [part.of_queries(np.zeros(part.queries.max(initial=0) + 1, bool)) for part in ranks]
    return [part if side == asked else empty[side] for side, part in enumerate(ranks)]

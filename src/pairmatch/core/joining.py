"""Joins several sets of features into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from pairmatch.core.arrays import Ints
from pairmatch.core.candidates import People
from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import NO_POOL, Pools


def join_features(parts: Sequence[PairedFeatures]) -> tuple[PairedFeatures, list[Ints]]:
    """Concatenates several sets of different people.

    Returns:
        The whole, and the component labels of each part in it.

    Raises:
        ConfigurationError: The features come from different sources.
    """
    sources = dict.fromkeys(part.blocks for part in parts)
    if len(sources) > 1:
        names = " and ".join(
            ", ".join(f"{block.name} ({block.width})" for block in blocks) for blocks in sources
        )
        raise ConfigurationError(f"Features of different sources cannot be joined: {names}.")
    starts_a = np.cumsum([0, *(len(part.a) for part in parts[:-1])])
    starts_b = starts_a
    b = None
    if parts[0].b is not None:
        sides = [part.b for part in parts if part.b is not None]
        starts_b = np.cumsum([0, *(len(side) for side in sides[:-1])])
        b = np.concatenate(sides)
    starts = np.stack([starts_a, starts_b], axis=1)
    units_a, units_b = [], []
    people = 0
    for part in parts:
        units_a.append(part.units_a + people)
        units_b.append((part.units_a if part.units_b is None else part.units_b) + people)
        people += int(part.units.max(initial=-1)) + 1
    units = np.concatenate([*units_a, *([] if b is None else units_b)])
    outcomes = [
        np.repeat([0, 1, 2], np.diff([0, *part.ends, len(part.decisions)])) for part in parts
    ]
    order = np.argsort(np.concatenate(outcomes), kind="stable")
    source = np.repeat(np.arange(len(parts)), [len(part.decisions) for part in parts])[order]
    rows = [part.decisions.pairs + start for part, start in zip(parts, starts, strict=True)]
    decisions = Decisions(
        np.concatenate(rows),
        np.concatenate([part.decisions.a for part in parts]),
        np.concatenate([part.decisions.b for part in parts]),
    )
    whole = PairedFeatures.of_units(
        np.concatenate([part.a for part in parts]),
        b,
        decisions.take(order),
        (sum(part.ends[0] for part in parts), sum(part.ends[1] for part in parts)),
        np.unique(units, return_inverse=True)[1].astype(np.int64),
        _join_pools([part.pools for part in parts], starts),
        parts[0].blocks,
    )
    named = [part.people for part in parts if part.people is not None]
    if len(named) == len(parts):
        everyone = People(
            tuple(chain(*(one.a for one in named))), tuple(chain(*(one.b for one in named)))
        )
        whole = replace(whole, people=everyone)
    labels = whole.decision_components
    return whole, [np.unique(labels[source == number]) for number in range(len(parts))]


def _join_pools(parts: Sequence[Pools | None], starts: Ints) -> Pools | None:
    """The pools of several sets of people whose rows follow one another; equal names are one pool.

    Args:
        parts: Pools of each set; None if the set has none.
        starts: [parts, 2] first row of each set on sides a and b.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    names = sorted({name for part in known for name in part.names})
    a, b, pairs, pools = [], [], [], []
    for part, start in zip(parts, starts, strict=True):
        if part is None:
            continue
        number = np.searchsorted(names, part.names)
        a.append(np.stack([part.a[:, 0] + start[0], number[part.a[:, 1]]], axis=1))
        if part.b is not None:
            b.append(np.stack([part.b[:, 0] + start[1], number[part.b[:, 1]]], axis=1))
        pairs.append(part.pairs + start)
        pools.append(np.where(part.pool == NO_POOL, NO_POOL, number[part.pool]))
    return Pools(
        tuple(names),
        _by_pool(np.concatenate(a)),
        _by_pool(np.concatenate(b)) if b else None,
        np.concatenate(pairs),
        np.concatenate(pools),
    )


def _by_pool(members: Ints) -> Ints:
    return members[np.lexsort(members.T)]

"""Ranks of true partners among those whom a person could have met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from pairmatch.core.arrays import Ints, Vectors, positions_of
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import NO_POOL, Pools
from pairmatch.evaluation.ranks import PartnerRanks, rank_partners


class PoolBlock(NamedTuple):
    """The people of a pool, and the matches in it.

    Attributes:
        pool: Number of the pool; −1 for all people.
        rows_a: [n] int64 rows of side a, ascending.
        rows_b: [m] int64 rows of side b, ascending; those of `rows_a` in one-sided sets.
        matches: [p, 2] int64 positions in `rows_a` and `rows_b`.
        elsewhere: [x, 2] int64 positions of people of the pool whose match belongs to another pool,
            or to none: they are no candidates of each other.
    """

    pool: int
    rows_a: Ints
    rows_b: Ints
    matches: Ints
    elsewhere: Ints


def rank_all(
    data: PairedFeatures, e_a: Vectors, e_b: Vectors, *, known: Ints | None = None
) -> list[PartnerRanks]:
    """Ranks every true partner inside the pool of the pair, or among all people without pools.

    A pair without a pool is ranked among all people, and so is every pair of a set without pools.
    Partners of a query person whose pair belongs to another pool are no candidates: like known
    matches, they are neither to be found there nor wrong.

    Args:
        data: People, matches and pools.
        e_a: [N, K] float32 embeddings of side a, unit length.
        e_b: [M, K] float32 embeddings of side b; in one-sided sets, of the same people as
            candidates.
        known: [K, 2] int64 rows that are known to match: the two are no candidates of each other.

    Returns:
        Directions a → b and b → a, by query person and pool; a single entry for one-sided sets.
    """
    if data.pools is None:
        return rank_partners(e_a, e_b, data.matches, one_sided=data.one_sided, known=known)
    found: list[list[PartnerRanks]] = [[] for _ in data.galleries]
    for block, hidden in blocks_with_hidden(data, known):
        rows = block.rows_a, block.rows_b
        ranks = rank_partners(
            e_a[block.rows_a],
            e_b[block.rows_b],
            block.matches,
            one_sided=data.one_sided,
            known=hidden,
        )
        for direction, part in enumerate(ranks):
            queries = rows[direction][part.queries]
            partners = rows[1 - direction][part.partners]
            pools = np.full(len(queries), block.pool, np.int64)
            found[direction].append(replace(part, queries=queries, partners=partners, pools=pools))
    return [_sorted(parts) for parts in found]


def blocks_with_hidden(
    data: PairedFeatures, known: Ints | None = None
) -> Iterator[tuple[PoolBlock, Ints]]:
    """Every block of `pool_blocks`, and the pairs in it who are no candidates of each other.

    Args:
        data: People, matches and pools.
        known: [K, 2] int64 rows of people who are no candidates of each other, wherever they meet.

    Yields:
        A block, and [H, 2] int64 positions in its `rows_a` and `rows_b`.
    """
    known = np.empty((0, 2), np.int64) if known is None else known
    known_pool, shared = np.empty(0, np.int64), np.empty(0, np.int64)
    if data.pools is not None:
        known_pool, shared = _pools_of_both(data.pools, known)
    for block in pool_blocks(data):
        local = known
        if block.pool != NO_POOL:
            local = known[_in_pool(known_pool, shared, block.pool)]
        local = _renumbered(local, block.rows_a, block.rows_b)
        yield block, np.concatenate([local, block.elsewhere])


def pool_blocks(data: PairedFeatures) -> Iterator[PoolBlock]:
    """Every pool that has a match, and all people for matches without a pool."""
    everyone = np.arange(len(data.a)), np.arange(len(data.a if data.b is None else data.b))
    matches = data.matches
    pool, people = np.full(len(data), NO_POOL, np.int64), []
    shared_pool, shared = np.empty(0, np.int64), np.empty(0, np.int64)
    if data.pools is not None:
        pool, people = data.pools.pool[: len(data)], data.pools.people()
        shared_pool, shared = _pools_of_both(data.pools, matches)
    order = np.argsort(pool, kind="stable")
    numbers, starts = np.unique(pool[order], return_index=True)
    for number, positions in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        rows_a, rows_b = everyone if number == NO_POOL else people[number]
        others = np.flatnonzero(pool != NO_POOL)
        if number != NO_POOL:
            others = _in_pool(shared_pool, shared, number)
            others = others[pool[others] != number]
        chosen = (_renumbered(matches[part], rows_a, rows_b) for part in (positions, others))
        yield PoolBlock(number, rows_a, rows_b, *chosen)


def most_candidates(data: PairedFeatures) -> int:
    """Number of candidates of the query that has most of them."""
    most = 0
    for block in pool_blocks(data):
        ends = [block.matches, block.elsewhere]
        if data.one_sided:
            ends = [np.concatenate([part, part[:, ::-1]]) for part in ends]
        rows = block.rows_a, block.rows_b
        for side in range(len(data.galleries)):
            asked, left_out = (
                np.bincount(part[:, side], minlength=len(rows[side])) for part in ends
            )
            candidates = len(rows[1 - side]) - data.one_sided - left_out
            most = max(most, int(candidates[asked > 0].max(initial=0)))
    return most


def _renumbered(pairs: Ints, rows_a: Ints, rows_b: Ints) -> Ints:
    columns = [np.searchsorted(rows_a, pairs[:, 0]), np.searchsorted(rows_b, pairs[:, 1])]
    return np.stack(columns, axis=1).astype(np.int64)


def _pools_of_both(pools: Pools, pairs: Ints) -> tuple[Ints, Ints]:
    """Every pool in which both people of a pair are, ascending, and the number of the pair."""
    members = pools.a[np.argsort(pools.a[:, 0], kind="stable")]
    first, last = (np.searchsorted(members[:, 0], pairs[:, 0], side) for side in ("left", "right"))
    counts = last - first
    number = np.repeat(np.arange(len(pairs)), counts)
    offsets = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
    pool = members[np.repeat(first, counts) + offsets, 1]
    others = pools.a if pools.b is None else pools.b
    kept = positions_of(others, np.stack([pairs[number, 1], pool], axis=1)) >= 0
    order = np.argsort(pool[kept], kind="stable")
    return pool[kept][order], number[kept][order]


def _in_pool(pools: Ints, numbers: Ints, pool: int) -> Ints:
    """The numbers beside one pool, of the two results of `_pools_of_both`."""
    return numbers[slice(*np.searchsorted(pools, [pool, pool + 1]))]


def _sorted(parts: list[PartnerRanks]) -> PartnerRanks:
    """The ranks of all pools in one, by query person and pool."""
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(PartnerRanks)
    }
    order = np.lexsort([columns["pools"], columns["queries"]])
    return PartnerRanks(**{name: values[order] for name, values in columns.items()})

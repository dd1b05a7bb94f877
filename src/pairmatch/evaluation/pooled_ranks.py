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
    """

    pool: int
    rows_a: Ints
    rows_b: Ints
    matches: Ints


def rank_all(
    data: PairedFeatures, e_a: Vectors, e_b: Vectors, *, known: Ints | None = None
) -> list[PartnerRanks]:
    """Ranks every true partner inside the pool of the pair, or among all people without pools.

    A pair without a pool is ranked among all people, and so is every pair of a set without pools.

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
    known = np.empty((0, 2), np.int64) if known is None else known
    known_pool, known_pairs = _known_by_pool(data.pools, known)
    found: list[list[PartnerRanks]] = [[] for _ in data.galleries]
    for block in pool_blocks(data):
        local = known
        if block.pool != NO_POOL:
            local = known_pairs[slice(*np.searchsorted(known_pool, [block.pool, block.pool + 1]))]
        rows = block.rows_a, block.rows_b
        ranks = rank_partners(
            e_a[block.rows_a],
            e_b[block.rows_b],
            block.matches,
            one_sided=data.one_sided,
            known=_renumbered(local, *rows),
        )
        for direction, part in enumerate(ranks):
            queries = rows[direction][part.queries]
            partners = rows[1 - direction][part.partners]
            pools = np.full(len(queries), block.pool, np.int64)
            found[direction].append(replace(part, queries=queries, partners=partners, pools=pools))
    return [_sorted(parts) for parts in found]


def pool_blocks(data: PairedFeatures) -> Iterator[PoolBlock]:
    """Every pool that has a match, and all people for matches without a pool."""
    everyone = np.arange(len(data.a)), np.arange(len(data.a if data.b is None else data.b))
    pool, people = np.full(len(data), NO_POOL, np.int64), []
    if data.pools is not None:
        pool, people = data.pools.pool[: len(data)], data.pools.people()
    order = np.argsort(pool, kind="stable")
    numbers, starts = np.unique(pool[order], return_index=True)
    for number, positions in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        rows_a, rows_b = everyone if number == NO_POOL else people[number]
        matches = _renumbered(data.matches[positions], rows_a, rows_b)
        yield PoolBlock(number, rows_a, rows_b, matches)


def _renumbered(pairs: Ints, rows_a: Ints, rows_b: Ints) -> Ints:
    columns = [np.searchsorted(rows_a, pairs[:, 0]), np.searchsorted(rows_b, pairs[:, 1])]
    return np.stack(columns, axis=1).astype(np.int64)


def _known_by_pool(pools: Pools, known: Ints) -> tuple[Ints, Ints]:
    """Every pool in which both people of a known pair are, ascending, and the pair."""
    members = pools.a[np.argsort(pools.a[:, 0], kind="stable")]
    first, last = (np.searchsorted(members[:, 0], known[:, 0], side) for side in ("left", "right"))
    counts = last - first
    pairs = np.repeat(known, counts, axis=0)
    offsets = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    pool = members[np.repeat(first, counts) + offsets, 1]
    others = pools.a if pools.b is None else pools.b
    kept = positions_of(others, np.stack([pairs[:, 1], pool], axis=1)) >= 0
    order = np.argsort(pool[kept], kind="stable")
    return pool[kept][order], pairs[kept][order]


def _sorted(parts: list[PartnerRanks]) -> PartnerRanks:
    """The ranks of all pools in one, by query person and pool."""
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(PartnerRanks)
    }
    order = np.lexsort([columns["pools"], columns["queries"]])
    return PartnerRanks(**{name: values[order] for name, values in columns.items()})

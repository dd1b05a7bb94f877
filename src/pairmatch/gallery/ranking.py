"""Ranks the eligible candidates of blocks, all at once or as a stream larger than memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.blocks import Block, ids_at
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.gallery.search import top_k
from pairmatch.rules import Mask, Rule, person_columns

_MAX_FINALISTS = 65_536  # candidates; above this number, finalists are pruned to the best


@dataclass(frozen=True, slots=True)
class Selection:
    """The candidates that satisfy a rule.

    Attributes:
        rows: [n] int64: row numbers in ascending order.
        remaining: [filters] int64: number of candidates after each filter.
    """

    rows: Ints
    remaining: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The best candidates of Q queries as row numbers.

    Attributes:
        rows: [Q, k] int64; −1 if a query has fewer candidates.
        scores: [Q, k] float32; −inf there.
        eligible: [Q] int64: number of candidates that pass all filters and are not excluded.
        remaining: [Q, filters] int64: number of candidates after each filter.
    """

    rows: Ints
    scores: Vectors
    eligible: Ints
    remaining: Ints

    def result(self, blocks: Sequence[Block], filters: Sequence[str]) -> SearchResult:
        """The ranking with ids, and with the filter that removed the last candidate."""
        excluded_by = [
            None if eligible else first_empty(filters, remaining)
            for eligible, remaining in zip(self.eligible, self.remaining, strict=True)
        ]
        ids = ids_at(self.rows, blocks)
        return SearchResult(ids, self.scores, self.eligible, tuple(excluded_by))


def first_empty(filters: Sequence[str], remaining: Iterable[int]) -> str:
    """The first filter after which no candidate is left; `exclusions` if each leaves some."""
    for name, count in zip(filters, remaining, strict=True):
        if not count:
            return name
    return "exclusions"


def rank(blocks: Sequence[Block], request: SearchRequest, bonus: Vectors | None = None) -> Ranking:
    """Ranks the candidates of blocks exactly.

    Args:
        blocks: Candidates; row numbers continue from block to block.
        request: Queries and filters.
        bonus: [rows] float32, added to the score of each row.
    """
    count = len(request.queries)
    ranking = Ranking(
        rows=np.full((count, request.k), -1, np.int64),
        scores=np.full((count, request.k), -np.inf, np.float32),
        eligible=np.zeros(count, np.int64),
        remaining=np.zeros((count, len(request.filters)), np.int64),
    )
    excluded = None if request.excluded is None else _excluded_rows(request.excluded, blocks)
    people = sum(map(len, blocks))
    for group in request.groups:
        queries = group.queries
        selection = select(blocks, request.rule, group.person, mutual=request.mutual)
        rows = selection.rows
        hidden = None if excluded is None else [excluded[query] for query in queries]
        ranking.remaining[queries] = selection.remaining
        ranking.eligible[queries] = len(rows)
        if hidden is not None:
            ranking.eligible[queries] -= [
                np.isin(one_query, rows, assume_unique=True).sum() for one_query in hidden
            ]
        if len(rows):
            ranking.rows[queries], ranking.scores[queries] = top_k(
                request.queries[queries],
                [block.vectors for block in blocks],
                request.k,
                rows=None if len(rows) == people else rows,
                excluded=hidden,
                bonus=bonus,
            )
    return ranking


def rank_stream(
    blocks: Iterable[Block], request: SearchRequest, bonus: Vectors | None = None
) -> tuple[Ranking, list[Block]]:
    """Ranks candidates block by block, exactly, in memory for a few blocks.

    The best of each block stay as finalists, and the finalists are ranked at the end.

    Args:
        blocks: Candidates, all alive.
        request: Queries and filters.
        bonus: [rows] float32, added to the score of each row.

    Returns:
        The ranking, and the blocks that its row numbers refer to.

    Raises:
        ConfigurationError: The number of rows differs from that of the bonus.
    """
    finalists: list[Block] = []
    finalist_bonus: list[Vectors] = []
    eligible = np.zeros(len(request.queries), np.int64)
    remaining = np.zeros((len(request.queries), len(request.filters)), np.int64)
    start = 0
    for block in blocks:
        part = None if bonus is None else bonus[start : start + len(block)]
        if part is not None and len(part) < len(block):
            raise _changed()
        start += len(block)
        ranking = rank([block], request, part)
        eligible += ranking.eligible
        remaining += ranking.remaining
        _keep_best(ranking, block, part, finalists, finalist_bonus)
        if sum(map(len, finalists)) > _MAX_FINALISTS:
            merged = Block.merged(finalists)
            joined = None if bonus is None else np.concatenate(finalist_bonus)
            finalists.clear()
            finalist_bonus.clear()
            _keep_best(rank([merged], request, joined), merged, joined, finalists, finalist_bonus)
    if bonus is not None and start != len(bonus):
        raise _changed()
    final_bonus = np.concatenate(finalist_bonus) if finalist_bonus else None
    final = rank(finalists, request, final_bonus)
    return Ranking(final.rows, final.scores, eligible, remaining), finalists


def _keep_best(
    ranking: Ranking,
    block: Block,
    bonus: Vectors | None,
    finalists: list[Block],
    finalist_bonus: list[Vectors],
) -> None:
    best = np.unique(ranking.rows)
    best = best[best >= 0]
    if len(best):
        finalists.append(block.take(best))
        if bonus is not None:
            finalist_bonus.append(bonus[best])


def _changed() -> ConfigurationError:
    return ConfigurationError(
        "The gallery changed during a search with a bonus, so the bonus no longer fits its "
        "candidates: compute it again."
    )


def select(
    blocks: Sequence[Block], rule: Rule | None, person: Attributes, *, mutual: bool
) -> Selection:
    """Applies a rule for one query person."""
    masks: list[Mask] = []
    clauses = 0 if rule is None else len(rule.clauses) * (2 if mutual else 1)
    remaining = np.zeros(1 + clauses, np.int64)
    query = person_columns(person)
    for block in blocks:
        mask = block.alive.copy()
        remaining[0] += mask.sum()
        if rule is not None and len(mask):
            holds = rule.holds(block.columns(rule.attributes), query, len(mask))
            if mutual:
                holds += rule.holds(query, block.columns(rule.query_attributes), len(mask))
            for number, clause in enumerate(holds, 1):
                mask &= clause
                remaining[number] += mask.sum()
        masks.append(mask)
    rows = np.flatnonzero(np.concatenate(masks)) if masks else np.empty(0, np.int64)
    return Selection(rows, remaining)


def _excluded_rows(excluded: Sequence[Collection[str]], blocks: Sequence[Block]) -> list[Ints]:
    """Row numbers of the excluded ids of each query, in ascending order."""
    wanted = pa.array(sorted({person for ids in excluded for person in ids}), pa.string())
    row_by_id: dict[str, int] = {}
    start = 0
    for block in blocks:
        rows = block.find(wanted)
        ids = block.ids.take(pa.array(rows)).to_pylist()
        row_by_id.update(zip(ids, (rows + start).tolist(), strict=True))
        start += len(block)
    return [
        np.array(sorted(row_by_id[person] for person in set(ids) if person in row_by_id), np.int64)
        for ids in excluded
    ]

"""The best candidates of each query, and their order by a re-ranker: the second stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.types import Target
from pairmatch.evaluation.pooled_ranks import blocks_with_hidden
from pairmatch.evaluation.ranks import Doubles, PartnerRanks

#: Scores of a re-ranker that are closer than this, relative to their size, count as tied.
RELATIVE_TIE = 1e-6
_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class TopLists:
    """The best candidates of each query of one direction. Q queries, P pairs.

    Attributes:
        direction: 0 if the query people are of side a, 1 if of side b.
        queries: [Q] int64 row of each query person, in the order of `PartnerRanks`.
        pools: [Q] int64 pool of each query; −1 if all people are candidates.
        rows: [P, 2] int64 number of the query, and row of the candidate; sorted by query, and
            within a query best first. Equal scores are in the order of rows.
        scores: [P] float32.
    """

    direction: int
    queries: Ints
    pools: Ints
    rows: Ints
    scores: Vectors

    def pairs(
        self,
        data: PairedFeatures,
        vectors: tuple[Vectors, Vectors],
        second: SecondStage,
    ) -> CandidatePairs:
        """What a re-ranker reads of these candidates.

        Args:
            data: The people.
            vectors: [N, K] and [M, K] float32 embeddings of the people of both sides.
            second: The second stage.

        Raises:
            ConfigurationError: It needs profiles, and `data` does not know the people.
        """
        people, rows = np.unique(self.rows[:, 1], return_inverse=True)
        pairs = second.pairs(
            "b" if self.direction else "a",
            vectors[self.direction][self.queries],
            vectors[1 - self.direction][people],
            np.stack([self.rows[:, 0], rows], axis=1),
            self.scores,
        )
        if not second.needs_profiles:
            return pairs
        if data.people is None:
            raise ConfigurationError(
                "This re-ranker reads profiles, and features made from arrays have none: use a "
                "`Matcher`, or `Matcher.paired_features`."
            )
        asking, asked = (data.people.a, data.people.b)[:: -1 if self.direction else 1]
        return replace(
            pairs,
            query_profiles=[asking[row] for row in self.queries.tolist()],
            candidate_profiles=[asked[row] for row in people.tolist()],
        )


def top_lists(
    data: PairedFeatures,
    e_a: Vectors,
    e_b: Vectors,
    size: int,
    *,
    known: Ints | None = None,
) -> list[TopLists]:
    """The best candidates of every person who has a partner, inside the pool of the pair.

    Args:
        data: People, matches and pools.
        e_a: [N, K] float32 embeddings of side a.
        e_b: [M, K] float32 embeddings of side b; of all people as candidates in one-sided sets.
        size: Maximum number of candidates of each query.
        known: [K, 2] int64 rows of people who are no candidates of each other.

    Returns:
        One entry per direction, as `rank_all` has them.
    """
    found: list[list[TopLists]] = [[] for _ in data.galleries]
    for block, hidden in blocks_with_hidden(data, known):
        rows, vectors = (block.rows_a, block.rows_b), (e_a[block.rows_a], e_b[block.rows_b])
        for direction, lists in enumerate(found):
            ends = [block.matches, hidden]
            if data.one_sided:
                ends = [np.concatenate([part, part[:, ::-1]]) for part in ends]
            elif direction:
                ends = [part[:, ::-1] for part in ends]
            queries = np.unique(ends[0][:, 0])
            pairs, scores = _best(
                vectors[direction],
                vectors[1 - direction],
                queries,
                ends[1],
                size,
                one_sided=data.one_sided,
            )
            lists.append(
                TopLists(
                    direction,
                    rows[direction][queries],
                    np.full(len(queries), block.pool, np.int64),
                    np.stack([pairs[:, 0], rows[1 - direction][pairs[:, 1]]], axis=1),
                    scores,
                )
            )
    return [_sorted(direction, lists) for direction, lists in enumerate(found)]


def rerank_all(
    data: PairedFeatures,
    vectors: tuple[Vectors, Vectors],
    ranks: Sequence[PartnerRanks],
    second: SecondStage,
    *,
    known: Ints | None = None,
) -> list[PartnerRanks]:
    """Ranks of all partners after a re-ranker has ordered the best candidates of each query.

    The other candidates stay below them, in their order.

    Args:
        data: People, matches and pools.
        vectors: [N, K] and [M, K] float32 embeddings of the first stage.
        ranks: What `rank_all` returns for them.
        second: The second stage.
        known: As in `rank_all`.
    """
    lists = top_lists(data, *vectors, second.top, known=known)
    return [
        _reranked(part, top, second.score(top.pairs(data, vectors, second)))
        for part, top in zip(ranks, lists, strict=True)
    ]


def check_target(second: SecondStage | None, target: Target) -> None:
    """Raises ConfigurationError if there is a re-ranker and the target is not the match."""
    if second is not None and target != "match":
        raise ConfigurationError(
            f"A re-ranker orders candidates by the match, and the target is {target!r}: evaluate "
            "the first stage alone, or target='match'."
        )


def _reranked(ranks: PartnerRanks, top: TopLists, scores: Doubles) -> PartnerRanks:
    """Ranks of partners among candidates of which the best have new scores."""
    sizes = np.bincount(top.rows[:, 0], minlength=len(top.queries))
    starts = np.cumsum(sizes) - sizes
    table = np.full((len(sizes), int(sizes.max(initial=0)) + 1), -np.inf)
    table[top.rows[:, 0], np.arange(len(scores)) - starts[top.rows[:, 0]]] = scores
    link = np.repeat(np.arange(len(sizes)), ranks.starts()[1])
    # The place of each partner in the list of the query; partners beyond it keep their rank
    order = np.lexsort(top.rows.T[::-1])
    width = int(max(top.rows[:, 1].max(initial=0), ranks.partners.max(initial=0))) + 1
    codes = (top.rows @ np.array([width, 1]))[order]
    wanted = link * width + ranks.partners
    place = np.minimum(np.searchsorted(codes, wanted), max(len(codes) - 1, 0))
    listed = codes[place] == wanted if len(codes) else np.zeros(len(wanted), bool)
    better = np.maximum(ranks.better, sizes[link])
    tied = np.maximum(ranks.better + ranks.tied - better, 1)
    own = scores[order[place[listed]]][:, None]
    others, margin = table[link[listed]], RELATIVE_TIE * np.maximum(np.abs(own), 1)
    better[listed] = (others > own + margin).sum(1)
    tied[listed] = (others >= own - margin).sum(1) - better[listed]
    return replace(ranks, better=better, tied=tied)


def _best(
    asking: Vectors, asked: Vectors, queries: Ints, hidden: Ints, size: int, *, one_sided: bool
) -> tuple[Ints, Vectors]:
    """The best candidates of some queries: [P, 2] number of the query and candidate; scores [P]."""
    right = torch.from_numpy(np.ascontiguousarray(asked)).T
    chunk = max(1, _CHUNK_BYTES // (4 * max(1, len(asked))))
    hidden = hidden[np.argsort(hidden[:, 0], kind="stable")]
    pairs, found = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(queries), chunk):
        people = queries[start : start + chunk]
        scores = torch.mm(torch.from_numpy(asking[people]), right).numpy()
        if one_sided:
            scores[np.arange(len(people)), people] = -np.inf
        first, last = (np.searchsorted(hidden[:, 0], people, side) for side in ("left", "right"))
        counts = last - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = hidden[np.repeat(first, counts) + offsets, 1]
        scores[np.repeat(np.arange(len(people)), counts), columns] = -np.inf
        least = np.full(len(people), -np.inf)
        if size < len(asked):
            least = np.partition(scores, len(asked) - size, axis=1)[:, len(asked) - size]
        row, column = np.nonzero((scores >= least[:, None]) & (scores > -np.inf))
        values = scores[row, column]
        order = np.lexsort([column, -values, row])
        row, column, values = row[order], column[order], values[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < size  # equal scores may be more than there is room for
        pairs.append(np.stack([row[kept] + start, column[kept]], axis=1))
        found.append(values[kept])
    return np.concatenate(pairs), np.concatenate(found)


def _sorted(direction: int, parts: Sequence[TopLists]) -> TopLists:
    """The lists of all pools in one, by query person and pool."""
    queries = np.concatenate([part.queries for part in parts])
    pools = np.concatenate([part.pools for part in parts])
    starts = np.cumsum([0, *(len(part.queries) for part in parts[:-1])])
    rows = np.concatenate(
        [
            part.rows + np.array([start, 0])
            for part, start in zip(parts, starts.tolist(), strict=True)
        ]
    )
    scores = np.concatenate([part.scores for part in parts])
    order = np.lexsort([pools, queries])
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    rows[:, 0] = number[rows[:, 0]]
    by_query = np.argsort(rows[:, 0], kind="stable")
    return TopLists(direction, queries[order], pools[order], rows[by_query], scores[by_query])

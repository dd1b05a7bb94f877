"""Ranks of true partners among all candidates, counted exactly.

Ties are broken in expectation: every metric is its mean over all orders of the tied candidates, so
that constant embeddings score exactly chance. Scores closer than `TIE_TOLERANCE` count as tied,
because float32 products of unit vectors cannot tell them apart. A person with several partners
counts once (in each of their pools): Recall@K is the share of their partners among the first K, and
the reciprocal rank is that of their best-ranked partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import digamma, gammaln

from pairmatch.core.arrays import Floats, Ints, Vectors
from pairmatch.core.pools import NO_POOL

Doubles = npt.NDArray[np.float64]

TIE_TOLERANCE = 8 * float(np.finfo(np.float32).eps)
_STRIP_ROWS = 64  # at most 255: the matches of a strip are counted in bytes
_CHUNK_BYTES = 64 * 2**20  # scores held at once; with their masks about 1.5 times as much


@dataclass(frozen=True, slots=True)
class PartnerRanks:
    """Ranks of the true partners of one direction. R is the number of true (query, partner) pairs.

    Attributes:
        queries: [R] int64 row of the query person.
        partners: [R] int64 row of the partner.
        better: [R] int64 number of candidates that score above the partner.
        tied: [R] int64 number of candidates that score the same, at least 1: the partner counts.
        scores: [R] float32 cosine of the partner.
        candidates: [R] int64 number of candidates of the query person.
        pools: [R] int64 pool of the pair; −1 if all people are candidates. Rows are sorted by query
            person, then by pool.
    """

    queries: Ints
    partners: Ints
    better: Ints
    tied: Ints
    scores: Vectors
    candidates: Ints
    pools: Ints

    def starts(self) -> tuple[Ints, Ints]:
        """First row of each query, a person in a pool, and its number of partners."""
        is_first = np.ones(len(self.queries), bool)
        is_first[1:] = (np.diff(self.queries) != 0) | (np.diff(self.pools) != 0)
        first = np.flatnonzero(is_first)
        return first, np.diff(first, append=len(self.queries))

    def of_queries(self, chosen: npt.NDArray[np.bool_]) -> PartnerRanks:
        """The ranks of some queries: [people of their side] whether a person is one of them."""
        rows = chosen[self.queries]
        return PartnerRanks(
            self.queries[rows],
            self.partners[rows],
            self.better[rows],
            self.tied[rows],
            self.scores[rows],
            self.candidates[rows],
            self.pools[rows],
        )


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """Metrics of each query of one direction, and those of a random order. Q queries.

    Attributes:
        queries: [Q] int64 row of the query person, ascending.
        pools: [Q] int64 pool of the query; −1 if all people are candidates.
        candidates: [Q] int64 number of candidates.
        recall: [Q, number of K] float64 in [0, 1].
        reciprocal_rank: [Q] float64 in (0, 1].
        rank: [Q] float64 expected rank of the best-ranked partner; 1 is first.
        ahead: [Q] float64 number of candidates that score above the best-ranked partner.
        tied: [Q] float64 number of candidates that score the same, at least 1.
        tied_partners: [Q] float64 number of partners among those, at least 1.
        partners: [Q] float64 number of all partners.
        chance_recall: [Q, number of K] float64.
        chance_reciprocal_rank: [Q] float64.
        chance_rank: [Q] float64.
    """

    queries: Ints
    pools: Ints
    candidates: Ints
    recall: Doubles
    reciprocal_rank: Doubles
    rank: Doubles
    ahead: Doubles
    tied: Doubles
    tied_partners: Doubles
    partners: Doubles
    chance_recall: Doubles
    chance_reciprocal_rank: Doubles
    chance_rank: Doubles


def rank_partners(
    e_a: Vectors,
    e_b: Vectors,
    matches: Ints,
    *,
    one_sided: bool = False,
    known: Ints | None = None,
) -> list[PartnerRanks]:
    """Ranks every true partner, in both directions, in one pass over the scores.

    Args:
        e_a: [N, K] float32 embeddings of side a, unit length.
        e_b: [M, K] float32 embeddings of side b; in one-sided sets, of the same people as
            candidates.
        matches: [P, 2] int64 distinct rows of `e_a` and `e_b` that match.
        one_sided: Whether the rows of both arrays are the same people, who are never their own
            candidates.
        known: [K, 2] int64 rows of `e_a` and `e_b` that are known to match: the two are no
            candidates of each other. None of them is in `matches`.

    Returns:
        Directions a → b and b → a; a single entry for one-sided sets.
    """
    known = np.empty((0, 2), np.int64) if known is None else known
    if one_sided:
        matches, known = (
            np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0) for pairs in (matches, known)
        )
    known = known[np.argsort(known[:, 0], kind="stable")]
    matches = matches[np.argsort(matches[:, 0], kind="stable")]
    query, partner = matches[:, 0], matches[:, 1]
    left, right = torch.from_numpy(e_a), torch.from_numpy(e_b).T
    scores = _partner_scores(left, right, query, partner)
    bounds = (scores + np.float32(TIE_TOLERANCE), scores - np.float32(TIE_TOLERANCE))
    forward = np.zeros((2, len(matches)), np.int64)  # candidates above the high, the low bound
    count_strips = _StripCounter(forward, query, None if one_sided else partner, bounds)
    rows = max(1, min(1024, _CHUNK_BYTES // (4 * max(1, len(e_b)))))
    buffer = torch.empty(rows, len(e_b))
    for start in range(0, len(e_a), rows):
        block = left[start : start + rows]
        score = torch.mm(block, right, out=buffer[: len(block)]).numpy()
        if one_sided:
            diagonal = np.arange(len(block))
            score[diagonal, start + diagonal] = -np.inf
        rows_known = slice(*np.searchsorted(known[:, 0], [start, start + len(block)]))
        score[known[rows_known, 0] - start, known[rows_known, 1]] = -np.inf
        count_strips(score, start)
    left_out = np.bincount(known[:, 0], minlength=len(e_a))
    ranks = [_partner_ranks(matches, forward, scores, len(e_b) - one_sided - left_out)]
    if not one_sided:
        order = np.argsort(partner, kind="stable")
        candidates = len(e_a) - np.bincount(known[:, 1], minlength=len(e_b))
        backward = count_strips.backward
        swapped = matches[order, ::-1]
        ranks.append(_partner_ranks(swapped, backward[:, order], scores[order], candidates))
    return ranks


def _partner_ranks(links: Ints, counts: Ints, scores: Vectors, candidates: Ints) -> PartnerRanks:
    """Ranks from counts; `candidates` are those of all people of the side of the queries."""
    tied = np.maximum(counts[1] - counts[0], 1)
    queries, partners = links.T
    pools = np.full(len(queries), NO_POOL, np.int64)
    return PartnerRanks(queries, partners, counts[0], tied, scores, candidates[queries], pools)


class _StripCounter:
    """Counts the scores above each bound, in strips of rows that stay in the processor's cache.

    Args:
        forward: [2, P] int64 counts of candidates of side a's queries; filled.
        query: [P] int64 row of the query of each match, ascending.
        partner: [P] int64 row of its partner; None to count in one direction only.
        bounds: Two times [P] float32.
    """

    def __init__(
        self, forward: Ints, query: Ints, partner: Ints | None, bounds: tuple[Vectors, Vectors]
    ) -> None:
        self._forward = forward
        self._query = query
        self._partner = partner
        self._bounds = bounds
        self._threads = torch.get_num_threads()
        # One array per thread: their rows overlap
        self._backward = np.zeros((self._threads, *forward.shape), np.int64)

    def __call__(self, score: Vectors, first_row: int) -> None:
        """Counts the scores of the queries from `first_row` on."""
        tops = range(0, len(score), _STRIP_ROWS)
        threads = min(self._threads, len(tops))

        def count(thread: int) -> None:
            for top in tops[thread::threads]:
                strip = score[top : top + _STRIP_ROWS]
                _count_forward(self._forward, strip, self._query, first_row + top, self._bounds)
                if self._partner is not None:
                    _count_backward(self._backward[thread], strip, self._partner, self._bounds)

        if threads == 1:
            count(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(count, range(threads)))

    @property
    def backward(self) -> Ints:
        """[2, P] int64 counts of candidates of side b's queries."""
        counts: Ints = self._backward.sum(0)
        return counts


def _count_forward(
    counts: Ints, strip: Vectors, query: Ints, first_row: int, bounds: tuple[Vectors, Vectors]
) -> None:
    """Counts the candidates of a strip's queries that score above each bound."""
    part = slice(*np.searchsorted(query, [first_row, first_row + len(strip)]))
    if part.stop > part.start:
        scores = _take(strip, query[part] - first_row, axis=0)
        for count, bound in zip(counts, bounds, strict=True):
            count[part] = np.count_nonzero(scores > bound[part, None], axis=1)


def _count_backward(
    counts: Ints, strip: Vectors, partner: Ints, bounds: tuple[Vectors, Vectors]
) -> None:
    """Adds the rows of a strip that score above each bound, as candidates of side b's queries."""
    scores = _take(strip, partner, axis=1)
    for count, bound in zip(counts, bounds, strict=True):
        count += np.add.reduce((scores > bound).view(np.uint8), axis=0, dtype=np.uint8)


def _partner_scores(left: torch.Tensor, right: torch.Tensor, query: Ints, partner: Ints) -> Vectors:
    """[P] float32 score of each match, from the kernel that computes the whole matrix.

    Another kernel would round differently, and flip ranks.
    """
    parts = []
    for start in range(0, len(query), 128):
        rows = slice(start, start + 128)
        parts.append(torch.mm(left[query[rows]], right[:, partner[rows]]).diagonal())
    return torch.cat(parts).numpy()


def _take(score: Vectors, index: Ints, *, axis: int) -> Vectors:
    """`score.take(index, axis)`, without a copy if the index is the whole axis in order."""
    if len(index) == score.shape[axis] and np.array_equal(index, np.arange(len(index))):
        return score
    return score.take(index, axis)


def query_metrics(ranks: PartnerRanks, ks: Sequence[int]) -> QueryMetrics:
    """Metrics of every query that has a partner.

    Args:
        ranks: Ranks of the partners.
        ks: K of Recall@K. Of a query with K candidates or fewer, it is 1.
    """
    first, partners = ranks.starts()
    queries = ranks.queries[first]
    better = ranks.better.astype(np.float64)
    tied = ranks.tied.astype(np.float64)
    cutoffs = np.asarray(ks, np.float64)
    per_partner = np.clip((cutoffs[None, :] - better[:, None]) / tied[:, None], 0, 1)
    recall = np.add.reduceat(per_partner, first, axis=0) / partners[:, None]
    # The best-ranked partner, and how many partners share its tie
    best = np.minimum.reduceat(better, first)
    at_best = better == np.repeat(best, partners)
    sharing = np.add.reduceat(at_best.astype(np.int64), first)
    width = np.maximum.reduceat(np.where(at_best, tied, 0), first)
    candidates = ranks.candidates[first].astype(np.float64)
    nothing_better = np.zeros(len(queries))
    return QueryMetrics(
        queries=queries,
        pools=ranks.pools[first],
        candidates=ranks.candidates[first],
        recall=recall,
        reciprocal_rank=_expected_reciprocal(best, width, sharing),
        rank=best + (width + 1) / (sharing + 1),
        ahead=best,
        tied=width,
        tied_partners=sharing.astype(np.float64),
        partners=partners.astype(np.float64),
        chance_recall=np.minimum(cutoffs[None, :] / candidates[:, None], 1),
        chance_reciprocal_rank=_expected_reciprocal(nothing_better, candidates, partners),
        chance_rank=(candidates + 1) / (partners + 1),
    )


def _expected_reciprocal(better: Floats, tied: Floats, sharing: Ints) -> Doubles:
    """Mean of 1 / rank of the first of `sharing` partners in a random order of `tied` candidates.

    One partner: (ψ(better + tied + 1) − ψ(better + 1)) / tied. Several: Σ_m C(tied − m, sharing −
    1) / C(tied, sharing) / (better + m), because the first of them is at position m with that
    probability.
    """
    result = (digamma(better + tied + 1) - digamma(better + 1)) / tied
    single = tied == 1
    result[single] = 1 / (better[single] + 1)
    shared = np.flatnonzero(sharing > 1)
    cases, inverse = np.unique(
        np.stack([better[shared], tied[shared], sharing[shared]]), axis=1, return_inverse=True
    )
    values = np.empty(cases.shape[1])
    for index, (ahead, size, count) in enumerate(cases.T):
        m = np.arange(1, size - count + 2)
        log_probability = _log_choose(size - m, count - 1) - _log_choose(size, count)
        values[index] = np.sum(np.exp(log_probability) / (ahead + m))
    result[shared] = values[inverse.ravel()]
    return result


def _log_choose(n: Floats, k: float) -> Floats:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def recall_curve(ranks: PartnerRanks) -> Doubles:
    """[most candidates] float64: Recall@K for K = 1, 2, …, averaged over queries."""
    _, partners = ranks.starts()
    weights = 1 / np.repeat(partners, partners) / len(partners)
    # A partner tied with t − 1 others adds weight / t at each position better + 1 … better + t
    steps = np.zeros(int(ranks.candidates.max()) + 1)
    np.add.at(steps, ranks.better, weights / ranks.tied)
    np.add.at(steps, ranks.better + ranks.tied, -weights / ranks.tied)
    return np.minimum(np.cumsum(np.cumsum(steps[:-1])), 1)

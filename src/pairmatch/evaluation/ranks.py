"""Ranks of true partners among all candidates, and the metrics made of them.

Ties are broken in expectation: every metric is its mean over all orders of the tied candidates, so
that constant embeddings score exactly chance. Scores closer than `TIE_TOLERANCE` count as tied,
since float32 products of unit vectors cannot tell them apart. People with several partners count
once: Recall@K is the share of their partners among the first K, the reciprocal rank is that of
their best-placed partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import digamma, gammaln

from pairmatch.core.arrays import Floats, Ints

TIE_TOLERANCE = 8 * float(np.finfo(np.float32).eps)
_STRIP_ROWS = 64  # at most 255: matches of a strip are counted in bytes
_CHUNK_BYTES = 64 * 2**20  # scores held at once; with their masks about 1.5 times this


@dataclass(frozen=True, slots=True)
class Placements:
    """Where each true partner of each query stands among the candidates of one direction. R true (query, partner)s.

    Attributes:
        queries: [R] int64, row of the person who asks.
        better: [R] int64, candidates that score above the partner.
        tied: [R] int64, candidates that score the same, the partner included: at least 1.
        scores: [R] float32, the partner's cosine.
        candidates: Size of the gallery.
    """

    queries: Ints
    better: Ints
    tied: Ints
    scores: npt.NDArray[np.float32]
    candidates: int


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """Metrics of every query of one direction. Q queries.

    Attributes:
        queries: [Q] int64, row of the person who asks, rising.
        recall: [Q, number of K] float64 in [0, 1].
        reciprocal_rank: [Q] float64 in (0, 1].
        rank: [Q] float64, expected rank of the best-placed partner, 1 is first.
        chance_recall: [Q, number of K] float64, the same for a random order.
        chance_reciprocal_rank: [Q] float64.
        chance_rank: [Q] float64.
    """

    queries: Ints
    recall: npt.NDArray[np.float64]
    reciprocal_rank: npt.NDArray[np.float64]
    rank: npt.NDArray[np.float64]
    chance_recall: npt.NDArray[np.float64]
    chance_reciprocal_rank: npt.NDArray[np.float64]
    chance_rank: npt.NDArray[np.float64]


def place(
    e_a: npt.NDArray[np.float32],
    e_b: npt.NDArray[np.float32] | None,
    matches: Ints,
    *,
    one_sided: bool = False,
) -> tuple[Placements, Placements | None]:
    """Places every true partner, in both directions from one pass over the scores.

    Args:
        e_a: [N, K] float32, unit length.
        e_b: [M, K] float32, unit length; None for one-sided sets, where the gallery is everybody
            else.
        matches: [P, 2] int64, distinct rows of `e_a` and of `e_b` that match (of `e_a` twice, in
            one-sided sets).
        one_sided: The set is one-sided although `e_b` is given: the same people, as candidates.

    Returns:
        Directions a → b and b → a; for one-sided sets the one direction, and None.
    """
    one_sided = one_sided or e_b is None
    if one_sided:
        matches = np.unique(np.concatenate([matches, matches[:, ::-1]]), axis=0)
        e_b = e_a if e_b is None else e_b
    assert e_b is not None
    matches = matches[np.argsort(matches[:, 0], kind="stable")]
    query, partner = matches[:, 0], matches[:, 1]
    left, right = torch.from_numpy(e_a), torch.from_numpy(e_b).T
    scores = _own_scores(left, right, query, partner)
    low, high = scores - np.float32(TIE_TOLERANCE), scores + np.float32(TIE_TOLERANCE)
    size = len(matches)
    forward, backward = np.zeros((2, size), np.int64), np.zeros((2, size), np.int64)
    rows = max(1, min(1024, _CHUNK_BYTES // (4 * max(1, len(e_b)))))
    buffer = torch.empty(rows, len(e_b))
    for start in range(0, len(e_a), rows):
        block = left[start : start + rows]
        score = torch.mm(block, right, out=buffer[: len(block)]).numpy()
        if one_sided:
            own = np.arange(len(block))
            score[own, start + own] = -np.inf
        # Counted in strips that stay in the processor's cache: four comparisons, one trip to memory
        for top in range(0, len(block), _STRIP_ROWS):
            strip = score[top : top + _STRIP_ROWS]
            here = slice(*np.searchsorted(query, [start + top, start + top + len(strip)]))
            if here.stop > here.start:
                asked = _take(strip, query[here] - start - top, axis=0)
                for count, bound in zip(forward, (high, low), strict=True):
                    count[here] = np.count_nonzero(asked > bound[here, None], axis=1)
            if not one_sided:
                asked = _take(strip, partner, axis=1)
                for count, bound in zip(backward, (high, low), strict=True):
                    count += np.add.reduce((asked > bound).view(np.uint8), axis=0, dtype=np.uint8)
    tied = np.maximum(forward[1] - forward[0], 1)
    ahead = Placements(query, forward[0], tied, scores, len(e_b) - one_sided)
    if one_sided:
        return ahead, None
    order = np.argsort(partner, kind="stable")
    return ahead, Placements(
        partner[order],
        backward[0][order],
        np.maximum(backward[1] - backward[0], 1)[order],
        scores[order],
        len(e_a),
    )


def _own_scores(
    left: torch.Tensor, right: torch.Tensor, query: Ints, partner: Ints
) -> npt.NDArray[np.float32]:
    """[P] float32 score of each match, by the kernel that computes the whole matrix.

    Like is compared with like.
    """
    scores = [
        torch.mm(
            left[query[start : start + 128]], right[:, partner[start : start + 128]]
        ).diagonal()
        for start in range(0, len(query), 128)
    ]
    return torch.cat(scores).numpy()


def _take(score: npt.NDArray[np.float32], index: Ints, *, axis: int) -> npt.NDArray[np.float32]:
    """`score.take(index, axis)`, without a copy where the index is everything in order."""
    if len(index) == score.shape[axis] and np.array_equal(index, np.arange(len(index))):
        return score
    return score.take(index, axis)


def query_metrics(placements: Placements, ks: Sequence[int]) -> QueryMetrics:
    """Metrics of every query that has a partner.

    Args:
        placements: Where the partners stand.
        ks: K of Recall@K, each at most the number of candidates.
    """
    queries, first, partners = np.unique(placements.queries, return_index=True, return_counts=True)
    better, tied = placements.better.astype(np.float64), placements.tied.astype(np.float64)
    cut = np.asarray(ks, np.float64)
    per_partner = np.clip((cut[None, :] - better[:, None]) / tied[:, None], 0, 1)
    recall = np.add.reduceat(per_partner, first, axis=0) / partners[:, None]
    # The best-placed partner, and how many partners share its tie
    best = np.minimum.reduceat(better, first)
    at_best = better == np.repeat(best, partners)
    sharing = np.add.reduceat(at_best.astype(np.int64), first)
    width = np.maximum.reduceat(np.where(at_best, tied, 0), first)
    candidates = np.full(len(queries), float(placements.candidates))
    return QueryMetrics(
        queries=queries,
        recall=recall,
        reciprocal_rank=_expected_reciprocal(best, width, sharing),
        rank=best + (width + 1) / (sharing + 1),
        chance_recall=np.repeat((cut / placements.candidates)[None, :], len(queries), axis=0),
        chance_reciprocal_rank=_expected_reciprocal(np.zeros(len(queries)), candidates, partners),
        chance_rank=(candidates + 1) / (partners + 1),
    )


def _expected_reciprocal(better: Floats, tied: Floats, sharing: Ints) -> npt.NDArray[np.float64]:
    """Mean of 1 / rank of the first of `sharing` partners in a random order of `tied` candidates after `better`.

    One partner: (ψ(better + tied + 1) − ψ(better + 1)) / tied. Several: Σ_m C(tied − m, sharing −
    1) / C(tied, sharing) / (better + m), since that is the probability that the first of them
    stands at place m.
    """
    result = (digamma(better + tied + 1) - digamma(better + 1)) / tied
    single = tied == 1
    result[single] = 1 / (better[single] + 1)
    several = np.flatnonzero(sharing > 1)
    cases, inverse = np.unique(
        np.stack([better[several], tied[several], sharing[several]]), axis=1, return_inverse=True
    )
    values = np.empty(cases.shape[1])
    for index, (ahead, size, count) in enumerate(cases.T):
        m = np.arange(1, size - count + 2)
        log_chance = _log_choose(size - m, count - 1) - _log_choose(size, count)
        values[index] = np.sum(np.exp(log_chance) / (ahead + m))
    result[several] = values[inverse.ravel()]
    return result


def _log_choose(n: Floats, k: float) -> Floats:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def recall_curve(placements: Placements) -> npt.NDArray[np.float64]:
    """[candidates] float64: Recall@K for K = 1, 2, …, averaged over queries."""
    _, inverse, partners = np.unique(placements.queries, return_inverse=True, return_counts=True)
    weights = 1 / partners[inverse] / len(partners)
    # A partner tied with t − 1 others adds weight / t at each of the places better + 1 … better + t
    steps = np.zeros(placements.candidates + 1)
    np.add.at(steps, placements.better, weights / placements.tied)
    np.add.at(steps, placements.better + placements.tied, -weights / placements.tied)
    return np.minimum(np.cumsum(np.cumsum(steps[:-1])), 1)


def clusters(matches: Ints, people_a: int, people_b: int | None) -> tuple[Ints, Ints]:
    """Labels of people who are joined through matches, [N] and [M] int64.

    The units that intervals resample.
    """
    shift = 0 if people_b is None else people_a
    total = people_a + (people_b or 0)
    links = coo_array(
        (np.ones(len(matches), np.int8), (matches[:, 0], matches[:, 1] + shift)),
        shape=(total, total),
    )
    labels = connected_components(links, directed=False)[1].astype(np.int64)
    return labels[:people_a], labels[shift : shift + (people_a if people_b is None else people_b)]

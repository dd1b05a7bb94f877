"""How heads rank the partners of held-out people, and the weights that rank them best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, minimize

from pairmatch.core.arrays import Ints
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.part import Part
from pairmatch.core.pools import NO_POOL
from pairmatch.learning.decompositions import Doubles

Flags = npt.NDArray[np.bool_]

_MOST_MATCHES = 250  # of a held-out part, and queries of each direction
_MOST_CANDIDATES = 128  # of a query, drawn at random: the likelihood stays consistent
_MOST_PEOPLE = 500  # of each side, from whom candidates are drawn
_LEAST_SHARE = 0.05  # smaller weights widen the embedding for little
_ROUNDING = 1e-6  # spreads of scores that differ by rounding only
LEAST_PENALTY = 1e-4
_LEAST_TOTAL = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Margins:
    """By how much heads score candidates above the true partner of held-out queries.

    Attributes:
        values: [Q, C, H] float64 cosine of each candidate minus that of the partner, by head. A
            query is a person and one of their partners; other partners are no candidates.
        present: [Q, C] bool whether the candidate exists; queries have different numbers.
    """

    values: Doubles
    present: Flags

    @classmethod
    def of(
        cls, test: PairedFeatures, heads: Sequence[ProjectionHead], rng: np.random.Generator
    ) -> Margins:
        """Measures heads on pairs that they have not seen, in both directions.

        Large parts are thinned at random, in matches, people and candidates. The likelihood of a
        choice among a random part of the candidates has its maximum at the same weights (McFadden
        1978).
        """
        test = _thinned(test, rng)
        choices = [
            _choices(test, direction, rng) for direction in range(1 if test.one_sided else 2)
        ]
        width = max(candidates.shape[1] for _, candidates in choices)
        size = sum(len(queries) for queries, _ in choices)
        values = np.zeros((size, width - 1, len(heads)))
        present = np.zeros((size, width - 1), bool)
        people = [_people(choices, side) for side in (0, 1)]
        others = test.a if test.b is None else test.b
        for index, head in enumerate(heads):
            sides = head.embed(test.a[people[0]], "a"), head.embed(others[people[1]], "b")
            start = 0
            for direction, (queries, candidates) in enumerate(choices):
                asking, asked = people[direction], people[1 - direction]
                rows = slice(start, start + len(queries))
                columns = slice(0, candidates.shape[1] - 1)
                e = sides[direction][np.searchsorted(asking, queries)]
                scores = e @ sides[1 - direction].T
                position = np.searchsorted(asked, np.maximum(candidates, asked[0]))
                scores = np.take_along_axis(scores, position, axis=1)
                values[rows, columns, index] = scores[:, 1:] - scores[:, :1]
                present[rows, columns] = candidates[:, 1:] >= 0
                start = rows.stop
        values[~present] = 0
        return cls(values, present)

    @classmethod
    def concatenate(cls, parts: Sequence[Margins]) -> Margins:
        """The queries of several parts, one after the other."""
        width = max(part.present.shape[1] for part in parts)
        padding = [(0, 0), (0, 0), (0, 0)]
        values, present = [], []
        for part in parts:
            padding[1] = (0, width - part.present.shape[1])
            values.append(np.pad(part.values, padding))
            present.append(np.pad(part.present, padding[:2]))
        return cls(np.concatenate(values), np.concatenate(present))

    def select(self, heads: Ints | Sequence[int]) -> Margins:
        """The same queries with some of the heads."""
        return Margins(np.take(self.values, heads, axis=2), self.present)

    def scaled(self, spreads: Doubles) -> Margins:
        """The same queries with each head's margins divided by its spread; 0 if that is 0."""
        values = np.zeros_like(self.values)
        np.divide(self.values, spreads, out=values, where=spreads > 0)
        return Margins(values, self.present)

    def spreads(self) -> Doubles:
        """[H] standard deviation of each head's scores among a query's candidates; 0 if equal."""
        counts = self.present.sum(1)
        means = self.values.sum(1) / np.maximum(counts, 1)[:, None]
        squares = (self.values**2).sum((0, 1)) - (counts[:, None] * means**2).sum(0)
        spreads = np.sqrt(np.maximum(squares, 0) / max(counts.sum(), 1))
        return np.where(spreads > _ROUNDING, spreads, 0)

    def scores(self, weights: Doubles) -> Doubles:
        """[Q, C] weighted sum of the heads' margins."""
        flat: Doubles = self.values.reshape(-1, len(weights)) @ weights  # one product, by BLAS
        return flat.reshape(self.present.shape)

    def log_likelihood(self, weights: Doubles) -> Doubles:
        """[Q] log probability that a query chooses the partner, in softmax of weighted scores."""
        return -np.logaddexp(0, _log_sum(self.scores(weights), self.present))

    def reciprocal_ranks(self, weights: Doubles) -> Doubles:
        """[Q] reciprocal of the partner's expected rank among the candidates of each query."""
        margins = self.scores(weights)
        ahead = (self.present & (margins > 0)).sum(1)
        tied = (self.present & (margins == 0)).sum(1)
        return 1 / (1 + ahead + tied / 2)

    def loss(self, weights: Doubles) -> tuple[float, Doubles]:
        """Mean negative log-likelihood, and its gradient [H]; convex in the weights."""
        logits = self.scores(weights)
        total = np.logaddexp(0, _log_sum(logits, self.present))
        chosen = np.exp(logits - total[:, None], out=logits)
        chosen[~self.present] = 0
        gradient = chosen.ravel() @ self.values.reshape(-1, len(weights))
        return float(total.mean()), gradient / len(total)


def choose_weights(folds: Sequence[Margins], penalty: float) -> tuple[Doubles, Doubles]:
    """Weights [H] of the heads' cosines, all 0 if they predict no partners; and spreads [H].

    Weights of the other folds must predict the partners of a fold better than chance, by more than
    a standard error. A head that ranks them better than these weights, by more than a standard
    error, is used alone: the likelihood punishes confident errors that do not matter to ranks.

    Args:
        folds: Margins of the same heads on each held-out part, the simplest head first.
        penalty: As in `penalized_weights`.
    """
    margins = Margins.concatenate(folds)
    spreads = margins.spreads()
    scaled = [fold.scaled(spreads) for fold in folds]
    chosen = penalized_weights(Margins.concatenate(scaled), penalty)
    likelihoods, stacked = [], []
    for index, fold in enumerate(scaled):
        others = Margins.concatenate([*scaled[:index], *scaled[index + 1 :]])
        weights = penalized_weights(others, penalty, start=chosen)
        likelihoods.append(fold.log_likelihood(weights) + np.log1p(fold.present.sum(1)))
        stacked.append(fold.reciprocal_ranks(weights))
    if not _is_above(np.concatenate(likelihoods)):
        return np.zeros(len(spreads)), spreads
    identity = np.eye(len(spreads))
    alone = np.stack([margins.reciprocal_ranks(head) for head in identity])
    winner = int(alone.mean(1).argmax())
    if _is_above(alone[winner] - np.concatenate(stacked)):
        return identity[winner], spreads
    weights = np.divide(chosen, spreads, out=np.zeros_like(chosen), where=spreads > 0)
    return weights, spreads


def _is_above(gains: Doubles) -> bool:
    """Whether a mean over queries is above 0 by a standard error; a pair has two queries."""
    return bool(gains.mean() > gains.std() / math.sqrt(len(gains) / 2))


def penalized_weights(margins: Margins, penalty: float, start: Doubles | None = None) -> Doubles:
    """[H] weights, shrunk to those of the first head alone; the smallest of them become 0.

    Args:
        margins: Margins of heads with spread 1.
        penalty: As in `fit_weights`, relative to the square of the sum of the weights.
        start: As in `fit_weights`.
    """
    heads = np.arange(margins.values.shape[2])
    prior = np.zeros(len(heads))
    prior[:1] = fit_weights(margins.select([0]), np.zeros(1), LEAST_PENALTY)
    free = fit_weights(margins, prior, LEAST_PENALTY, start)
    penalty /= max(free.sum(), _LEAST_TOTAL) ** 2
    weights = fit_weights(margins, prior, penalty, free)
    heads = np.flatnonzero(weights > _LEAST_SHARE * weights.sum())
    if len(heads):
        kept = fit_weights(margins.select(heads), prior[heads], penalty, weights[heads])
        weights = np.zeros_like(weights)
        weights[heads] = kept
    return weights


def fit_weights(
    margins: Margins,
    prior: Doubles,
    penalty: float,
    start: Doubles | None = None,
    *,
    bounded: int | None = None,
) -> Doubles:
    """Weights [H] that maximize the likelihood, shrunk towards prior weights.

    Args:
        margins: Margins of the heads on held-out queries.
        prior: [H] weights to which few queries are shrunk.
        penalty: Half of it times the squared distance to the prior is added to the mean negative
            log-likelihood.
        start: [H] weights that may be close to the solution, which is unique; None for the prior.
        bounded: Number of heads, the first ones, whose weights are not negative; None for all.
    """

    def objective(weights: Doubles) -> tuple[float, Doubles]:
        loss, gradient = margins.loss(weights)
        distance = weights - prior
        return loss + penalty / 2 * float(distance @ distance), gradient + penalty * distance

    least = np.full(len(prior), -np.inf)
    least[:bounded] = 0
    start = prior if start is None else start
    bounds = Bounds(least, np.inf)
    result = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.maximum(result.x, least)


def _log_sum(logits: Doubles, present: Flags) -> Doubles:
    """[Q] log of the sum of exponentials over the candidates that exist."""
    masked = np.where(present, logits, -np.inf)
    highest = np.maximum(masked.max(axis=1, initial=-np.inf), -1e300)
    with np.errstate(divide="ignore"):
        return highest + np.log(np.exp(masked - highest[:, None]).sum(1))


def _thinned(test: PairedFeatures, rng: np.random.Generator) -> PairedFeatures:
    """At most about `_MOST_MATCHES` random matches, and every match among their people."""
    if len(test) <= _MOST_MATCHES:
        return test
    chosen = test.matches[rng.choice(len(test), _MOST_MATCHES, replace=False)]
    sides = [np.unique(chosen)] * 2 if test.one_sided else [np.unique(side) for side in chosen.T]
    kept = np.isin(test.matches[:, 0], sides[0]) & np.isin(test.matches[:, 1], sides[1])
    return test.take(Part(np.flatnonzero(kept), np.empty(0, np.int64)))


def _people(choices: Sequence[tuple[Ints, Ints]], side: int) -> Ints:
    """Rows of one side that ask or are asked, ascending."""
    asking = choices[side][0] if side < len(choices) else np.empty(0, np.int64)
    asked = choices[1 - side][1] if side or len(choices) > 1 else np.empty(0, np.int64)
    rows = np.unique(np.concatenate([asking, asked.ravel()]))
    return rows[rows >= 0]


def _choices(test: PairedFeatures, direction: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Queries of one direction, and the people among whom each chooses: of the pair's pool.

    Returns:
        [Q] rows of the query people, and [Q, C] rows of the other side: the true partner first,
        then candidates; −1 after the last one.
    """
    pairs = test.matches if direction == 0 else test.matches[:, ::-1]
    if test.one_sided:
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
    everyone = np.arange(test.galleries[direction] + test.one_sided)
    if len(everyone) > _MOST_PEOPLE:
        everyone = rng.choice(everyone, _MOST_PEOPLE, replace=False)
    pools, number = [], np.full(len(pairs), NO_POOL)
    if test.pools is not None:
        pools = [people[1 - direction] for people in test.pools.people()]
        number = np.resize(test.pools.pool[: len(test)], len(pairs))
    partners: dict[int, set[int]] = {}
    for query, partner in pairs.tolist():
        partners.setdefault(query, {query} if test.one_sided else set()).add(partner)
    if len(pairs) > _MOST_MATCHES:
        chosen = rng.choice(len(pairs), _MOST_MATCHES, replace=False)
        pairs, number = pairs[chosen], number[chosen]
    rows = np.full((len(pairs), 1 + _MOST_CANDIDATES), -1, np.int64)
    rows[:, 0] = pairs[:, 1]
    longest = 0
    for row, query, pool in zip(rows, pairs[:, 0].tolist(), number.tolist(), strict=True):
        people = everyone if pool == NO_POOL else pools[pool]
        known = np.fromiter(partners[query], np.int64)
        size = min(len(people), _MOST_CANDIDATES + len(known))
        drawn = rng.choice(people, size, replace=False)
        drawn = drawn[~np.isin(drawn, known)][:_MOST_CANDIDATES]
        row[1 : 1 + len(drawn)] = drawn
        longest = max(longest, len(drawn))
    return pairs[:, 0], rows[:, : 1 + longest]

"""Stacked generalization: several heads joined by weights that held-out partners decide.

Wolpert 1992; with non-negative weights, Breiman 1996. The embeddings of the heads are scaled by the
square roots of their weights and concatenated, so that the inner product of two embeddings is the
weighted mean of the heads' cosines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor, cat, nn

from pairmatch.core.arrays import Ints
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.part import Part
from pairmatch.core.pools import NO_POOL
from pairmatch.core.types import Side
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.learning.closed_form_heads import unit
from pairmatch.learning.decompositions import Doubles
from pairmatch.learning.heads import build_head, describe_head

Flags = npt.NDArray[np.bool_]

_MOST_MATCHES = 250  # of a held-out part, and queries of each direction
_MOST_CANDIDATES = 128  # of a query, drawn at random: the likelihood stays consistent
_LEAST_SHARE = 0.05  # smaller weights widen the embedding for little
_ROUNDING = 1e-6  # spreads of scores that differ by rounding only
_LEAST_PENALTY = 1e-4
_LEAST_TOTAL = 1e-3


class StackedHead(ProjectionHead):
    """Several heads side by side: the score is the weighted mean of their cosines.

    Made by the learner `best`; before any fit, all heads weigh the same.

    Args:
        dim: Width D of the features.
        parts: By label, name and options of each head.
        columns: Ranges of columns that the heads read, [first, after the last]; all if empty.
        block_shares: Share of the score's variation by block of features; none of a single block.
    """

    trainable: ClassVar[bool] = False
    weights: Tensor
    spreads: Tensor

    def __init__(
        self,
        *,
        dim: int,
        parts: Mapping[str, PartSpec],
        columns: Sequence[Sequence[int]] = (),
        block_shares: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(parts, Mapping) or not parts:
            raise ConfigurationError(
                "`StackedHead(parts=...)` takes name and options of one head or more by label, "
                f"got {parts!r}."
            )
        if not all(0 <= start < stop <= dim for start, stop in columns):
            raise ConfigurationError(
                f"`StackedHead(columns=...)`: ranges ascend from 0 to dim ({dim}), got {columns!r}."
            )
        read = sum(stop - start for start, stop in columns) or dim
        self.dim = dim
        self.columns = [tuple(bounds) for bounds in columns]
        self.parts = dict(parts)
        self.block_shares = dict(block_shares or {})
        self.heads = nn.ModuleList(
            build_head(spec, dim=read).requires_grad_(False) for spec in parts.values()
        )
        self.width = sum(head.width for head in self._heads)
        self.register_buffer("weights", torch.full((len(parts),), 1 / len(parts)))
        self.register_buffer("spreads", torch.ones(len(parts)))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K], the sum of the heads' widths."""
        if self.columns:
            h = cat([h[:, slice(*bounds)] for bounds in self.columns], 1)
        parts = [unit(head.project(h, side)) for head in self._heads]
        return cat([part * root for part, root in zip(parts, self.weights.sqrt(), strict=True)], 1)

    @property
    def _heads(self) -> list[ProjectionHead]:
        return list(self.heads)  # type: ignore[arg-type]

    @property
    def shares(self) -> dict[str, float]:
        """By label, how much of the score's variation each head contributes; the sum is 1."""
        parts = self.weights * self.spreads
        return dict(zip(self.parts, (parts / parts.sum()).tolist(), strict=True))

    @classmethod
    def joined(
        cls, heads: Mapping[str, ProjectionHead], weights: Doubles, spreads: Doubles
    ) -> StackedHead:
        """Joins fitted heads.

        Args:
            heads: By label, all for features of one width.
            weights: [heads] positive weights of their cosines.
            spreads: [heads] standard deviations of their cosines among the candidates of a query.
        """
        dim = int(next(iter(heads.values())).dim)  # type: ignore[arg-type]
        parts = {label: describe_head(head) for label, head in heads.items()}
        stacked = cls(dim=dim, parts=parts)
        for part, head in zip(stacked.heads, heads.values(), strict=True):
            part.load_state_dict(head.state_dict())
        stacked.weights.copy_(torch.from_numpy(weights / weights.sum()))
        stacked.spreads.copy_(torch.from_numpy(spreads))
        return stacked.eval()


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

        Large parts are thinned at random. The likelihood of a choice among a random part of the
        candidates has its maximum at the same weights (McFadden 1978).
        """
        test = _thinned(test, rng)
        choices = [
            _choices(test, direction, rng) for direction in range(1 if test.one_sided else 2)
        ]
        width = max(candidates.shape[1] for _, candidates in choices)
        size = sum(len(queries) for queries, _ in choices)
        values = np.zeros((size, width - 1, len(heads)))
        present = np.zeros((size, width - 1), bool)
        for index, head in enumerate(heads):
            sides = embed_sides(test, head)
            start = 0
            for direction, (queries, candidates) in enumerate(choices):
                rows = slice(start, start + len(queries))
                columns = slice(0, candidates.shape[1] - 1)
                scores = sides[direction][queries] @ sides[1 - direction].T
                scores = np.take_along_axis(scores, np.maximum(candidates, 0), axis=1)
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
        return Margins(self.values[:, :, heads], self.present)

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

    def log_likelihood(self, weights: Doubles) -> Doubles:
        """[Q] log probability that a query chooses the partner, in softmax of weighted scores."""
        return -np.logaddexp(0, _log_sum(self.values @ weights, self.present))

    def reciprocal_ranks(self, weights: Doubles) -> Doubles:
        """[Q] reciprocal of the partner's expected rank among the candidates of each query."""
        margins = self.values @ weights
        ahead = (self.present & (margins > 0)).sum(1)
        tied = (self.present & (margins == 0)).sum(1)
        return 1 / (1 + ahead + tied / 2)

    def loss(self, weights: Doubles) -> tuple[float, Doubles]:
        """Mean negative log-likelihood, and its gradient [H]; convex in the weights."""
        logits = self.values @ weights
        total = np.logaddexp(0, _log_sum(logits, self.present))
        chosen = np.where(self.present, np.exp(logits - total[:, None]), 0)
        gradient = np.tensordot(chosen, self.values, axes=([0, 1], [0, 1]))
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
    likelihoods, stacked = [], []
    for index, fold in enumerate(scaled):
        others = Margins.concatenate([*scaled[:index], *scaled[index + 1 :]])
        weights = penalized_weights(others, penalty)
        likelihoods.append(fold.log_likelihood(weights) + np.log1p(fold.present.sum(1)))
        stacked.append(fold.reciprocal_ranks(weights))
    if not _is_above(np.concatenate(likelihoods)):
        return np.zeros(len(spreads)), spreads
    identity = np.eye(len(spreads))
    alone = np.stack([margins.reciprocal_ranks(head) for head in identity])
    winner = int(alone.mean(1).argmax())
    if _is_above(alone[winner] - np.concatenate(stacked)):
        return identity[winner], spreads
    weights = penalized_weights(Margins.concatenate(scaled), penalty)
    weights = np.divide(weights, spreads, out=np.zeros_like(weights), where=spreads > 0)
    return weights, spreads


def _is_above(gains: Doubles) -> bool:
    """Whether a mean over queries is above 0 by a standard error; a pair has two queries."""
    return bool(gains.mean() > gains.std() / math.sqrt(len(gains) / 2))


def penalized_weights(margins: Margins, penalty: float) -> Doubles:
    """[H] weights, shrunk to those of the first head alone; the smallest of them become 0.

    Args:
        margins: Margins of heads with spread 1.
        penalty: As in `fit_weights`, relative to the square of the sum of the weights.
    """
    heads = np.arange(margins.values.shape[2])
    prior = np.zeros(len(heads))
    prior[:1] = fit_weights(margins.select([0]), np.zeros(1), _LEAST_PENALTY)
    total = fit_weights(margins, prior, _LEAST_PENALTY).sum()
    penalty /= max(total, _LEAST_TOTAL) ** 2
    weights = fit_weights(margins, prior, penalty)
    heads = np.flatnonzero(weights > _LEAST_SHARE * weights.sum())
    if len(heads):
        kept = fit_weights(margins.select(heads), prior[heads], penalty)
        weights = np.zeros_like(weights)
        weights[heads] = kept
    return weights


def fit_weights(margins: Margins, prior: Doubles, penalty: float) -> Doubles:
    """Non-negative weights [H] that maximize the likelihood, shrunk towards prior weights.

    Args:
        margins: Margins of the heads on held-out queries.
        prior: [H] weights to which few queries are shrunk.
        penalty: Half of it times the squared distance to the prior is added to the mean negative
            log-likelihood.
    """

    def objective(weights: Doubles) -> tuple[float, Doubles]:
        loss, gradient = margins.loss(weights)
        distance = weights - prior
        return loss + penalty / 2 * float(distance @ distance), gradient + penalty * distance

    bounds = [(0.0, None)] * len(prior)
    result = minimize(objective, prior, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.maximum(result.x, 0)


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

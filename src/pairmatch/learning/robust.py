"""The learner `robust`: a metric learned in closed form from few pairs, no more of it than cross-validation supports.

Features are powered, centred per side, whitened with a shrunk covariance and scaled to unit length.
In that space the cross-covariance of partners says along which directions they agree. It is shrunk
towards a multiple of the identity (partners are alike in everything, equally), and each direction
weighs as in the likelihood ratio of partners against strangers, c / (1 − c²) for a correlation c
(two-covariance model, Brümmer and de Villiers 2010; length normalisation, Garcia-Romero and
Espy-Wilson 2011; shrinkage, Ledoit and Wolf 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from pairmatch.core.arrays import Floats, Ints, unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Learner, Projection
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validation_splits, frame, measure
from pairmatch.learning.baselines import Double, check_share, shrunk_scales, thin_svd
from pairmatch.learning.heads import FittedHead, MetricHead

_LEAST_SIMILARITY = (
    0.01  # of partners, for the prior: that they are alike is never given up altogether
)
_MOST_CORRELATION = 0.95


class PairMetric(Learner):
    """The metric with its options given. Choose `robust` unless you want to set them yourself.

    Args:
        shrinkage: Share of the identity in the covariance that whitens, in (0, 1]; 1 is no
            whitening.
        strength: Share of what was seen of partners in the metric, in [0, 1); 0 is whitened cosine.
        group_weight: What a pair of people counts who are joined through groups or partners and are
            no known match, at least 0; a match counts 1.
        power: Exponent that evens large and small features, in (0, 1].
    """

    def __init__(
        self,
        *,
        shrinkage: float = 0.9,
        strength: float = 0.02,
        group_weight: float = 0.0,
        power: float = 0.5,
    ) -> None:
        check_share("PairMetric", "shrinkage", shrinkage)
        check_share("PairMetric", "power", power)
        if not 0 <= strength < 1 or not 0 <= group_weight < math.inf:
            raise ConfigurationError(
                f"`PairMetric(...)`: strength must be in [0, 1) and group_weight at least 0, got {strength}, "
                f"{group_weight}."
            )
        self.shrinkage, self.strength, self.group_weight, self.power = (
            shrinkage,
            strength,
            group_weight,
            power,
        )

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> FittedHead:
        """Solves two eigenvalue problems."""
        return FittedHead(_solve(train, [self])[0])


class Robust(Learner):
    """The metric, with as much learning from pairs as cross-validation inside the training part supports.

    Candidates rise from centred cosine over whitened cosine to metrics of rising strength. The
    simplest is taken whose MRR is within `tolerance` standard errors of the best (Breiman et al.
    1984), by a paired comparison over people.

    Args:
        strengths: Of the metrics that are tried, rising.
        group_weight: Tried beside 0 where pairs are joined through groups or people.
        shrinkage: As in `PairMetric`.
        powers: Each is tried, as in `PairMetric`.
        tolerance: At least 0; 0 takes the best.
        folds: Of the inner cross-validation.
        least_pairs: Below so many groups of pairs nothing is learned from them: centred cosine.
    """

    def __init__(
        self,
        *,
        strengths: Sequence[float] = (0.01, 0.02, 0.04, 0.1, 0.3),
        group_weight: float = 0.3,
        shrinkage: float = 0.9,
        powers: Sequence[float] = (1.0, 0.5),
        tolerance: float = 0.5,
        folds: int = 5,
        least_pairs: int = 20,
    ) -> None:
        for strength, power in product(strengths, powers):
            PairMetric(
                shrinkage=shrinkage, strength=strength, group_weight=group_weight, power=power
            )
        if not strengths or list(strengths) != sorted(set(strengths)) or strengths[0] <= 0:
            raise ConfigurationError(
                f"`Robust(strengths=...)` must be above 0 and rise, got {list(strengths)}."
            )
        if not powers or not 0 <= tolerance < math.inf:
            raise ConfigurationError(
                f"`Robust(...)`: powers must not be empty and tolerance be at least 0, got {list(powers)}, {tolerance}."
            )
        if folds < 2 or least_pairs < folds:
            raise ConfigurationError(
                f"`Robust(...)`: folds must be at least 2 and least_pairs at least folds, got {folds}, {least_pairs}."
            )
        self.strengths, self.group_weight = tuple(strengths), group_weight
        self.shrinkage, self.powers, self.tolerance = shrinkage, tuple(powers), tolerance
        self.folds, self.least_pairs = folds, least_pairs

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> FittedHead:
        """Chooses by cross-validation among the training pairs, then learns from all of them."""
        independent = len(np.unique(train.components))
        if independent < self.least_pairs:
            note = (
                f"Too few pairs to learn from ({independent} independent groups of pairs, at least {self.least_pairs} "
                "are needed): people are compared by centred features."
            )
            return FittedHead(
                PairMetric(shrinkage=1.0, strength=0.0, power=self.powers[0]).fit(train).head,
                (note,),
            )
        weights = (
            [0.0, self.group_weight] if independent < len(train) and self.group_weight else [0.0]
        )
        candidates = [
            PairMetric(shrinkage=shrinkage, strength=strength, group_weight=weight, power=power)
            for shrinkage, strength, weight, power in [
                *product([1.0, self.shrinkage], [0.0], [0.0], self.powers),
                *product([self.shrinkage], self.strengths, weights, self.powers),
            ]
        ]
        splits = cross_validation_splits(train, repeats=1, folds=self.folds, seed=seed)
        components = frame(train, splits, (1,))[0]["component"]
        by_split = [
            [
                measure(train, _Solved(head), [split], (1,))[:, 1]
                for head in _solve(train.of_components(split.train), candidates)
            ]
            for split in splits
        ]
        scores = [np.concatenate(found) for found in zip(*by_split, strict=True)]
        chosen = _simplest_of_the_best(scores, components, self.tolerance)
        notes = []
        if not candidates[chosen].strength:
            best = max(
                (index for index, one in enumerate(candidates) if one.strength),
                key=lambda index: scores[index].mean(),
            )
            notes.append(
                f"Cross-validation among the {len(train)} training pairs does not show that learning from them pays "
                f"(MRR {scores[best].mean():.3f} with it, {scores[chosen].mean():.3f} without): people are compared by "
                f"{'centred' if candidates[chosen].shrinkage == 1 else 'whitened'} features."
            )
        return FittedHead(candidates[chosen].fit(train).head, tuple(notes))


def _simplest_of_the_best(scores: Sequence[Double], components: Ints, tolerance: float) -> int:
    """The first candidate whose mean score is within `tolerance` standard errors of the best, over components."""
    best = max(range(len(scores)), key=lambda index: scores[index].mean())
    _, label = np.unique(components, return_inverse=True)
    for index in range(best):
        behind = scores[best] - scores[index]
        sums = np.bincount(label, behind - behind.mean())
        error = math.sqrt(float((sums**2).sum()) * len(sums) / max(len(sums) - 1, 1)) / len(behind)
        if behind.mean() <= tolerance * error:
            return index
    return best


@dataclass(frozen=True, slots=True)
class _Partners:
    """How partners agree.

    Their similarity on average, and the eigenvalues [R] and -vectors [D, R] of it.
    """

    similarity: float
    values: Double
    vectors: Double


@dataclass(frozen=True, slots=True)
class _People:
    """Training people powered and centred, and the directions that they vary in."""

    power: float
    mean: Double  # [2, D]
    rows: Double  # [N + M, D], or [N, D] in one-sided sets
    singular: Double  # [R]
    basis: Double  # [D, R]; all rows lie in its span
    side_a: int  # N

    @classmethod
    def of(cls, train: PairedFeatures, power: float) -> _People:
        a = _powered(train.a, power)
        b = a if train.b is None else _powered(train.b, power)
        mean = np.stack([a.mean(0), b.mean(0)])
        rows = a - mean[0] if train.b is None else np.concatenate([a - mean[0], b - mean[1]])
        _, singular, directions = thin_svd(rows)
        return cls(power, mean, rows, singular, directions.T, len(a))

    def whitened(self, shrinkage: float, *, one_sided: bool) -> _Space:
        """Rows with unit covariance as far as it is not shrunk, and length √D."""
        size = self.rows.shape[1]
        scale, rest = shrunk_scales(self.singular, len(self.rows), size, shrinkage)
        white = np.float64(math.sqrt(size)) * unit_rows((self.rows @ self.basis) * scale)
        return _Space(
            self, scale, rest, white[: self.side_a], white if one_sided else white[self.side_a :]
        )


@dataclass(frozen=True, slots=True)
class _Space:
    """Training people whitened, in the coordinates of their directions."""

    people: _People
    scale: Double  # [R]
    rest: float
    a: Double  # [N, R]
    b: Double  # [M, R]

    def partners(self, train: PairedFeatures, group_weight: float) -> _Partners:
        """Symmetric cross-covariance of matches, and of people who are joined otherwise as far as they count."""
        i, j = train.matches.T
        agreement, count = self.a[i].T @ self.b[j], float(len(i))
        if group_weight:
            first, second = _sums(i, train.components, self.a), _sums(j, train.components, self.b)
            if train.one_sided:
                first = second = _sums(np.concatenate([i, j]), np.tile(train.components, 2), self.a)
            joined, pairs = first.total.T @ second.total, float(first.people @ second.people)
            if train.one_sided:  # everybody met themself, and everybody else both ways round
                joined, pairs = (joined - first.own) / 2, (pairs - first.people.sum()) / 2
            symmetric = (agreement + agreement.T) / 2 if train.one_sided else agreement
            agreement = agreement + group_weight * (joined - symmetric)
            count += group_weight * (pairs - count)
        basis = self.people.basis
        agreement = (agreement + agreement.T) / (2 * count)
        values, vectors = (
            np.linalg.eigh(agreement) if agreement.size else (np.zeros(0), np.zeros((0, 0)))
        )
        return _Partners(
            max(float(values.sum()) / len(basis), _LEAST_SIMILARITY), values, basis @ vectors
        )

    def head(self, partners: _Partners | None, strength: float) -> MetricHead:
        """The head for a share of what was seen of partners; without any, whitened cosine."""
        people = self.people
        head = MetricHead(dim=people.basis.shape[0], rank=people.basis.shape[1], power=people.power)
        values: dict[str, Any] = {
            "mean": people.mean,
            "whitening_basis": people.basis,
            "whitening_scale": self.scale,
            "whitening_rest": self.rest,
        }
        if partners is not None:
            prior = (1 - strength) * partners.similarity
            correlation = np.clip(
                np.append(prior + strength * partners.values, prior), 0, _MOST_CORRELATION
            )
            gains = np.sqrt(correlation / (1 - correlation**2))
            values |= {
                "metric_basis": partners.vectors,
                "metric_scale": gains[:-1],
                "metric_rest": gains[-1],
            }
        tensors = {
            key: torch.as_tensor(np.asarray(value, np.float32)) for key, value in values.items()
        }
        head.load_state_dict({**head.state_dict(), **tensors})
        return head.eval()


def _solve(train: PairedFeatures, metrics: Sequence[PairMetric]) -> list[MetricHead]:
    """Heads of several metrics; what they share is computed once."""
    people: dict[float, _People] = {}
    spaces: dict[tuple[float, float], _Space] = {}
    partners: dict[tuple[float, float, float], _Partners] = {}
    heads = []
    for one in metrics:
        where = (one.power, one.shrinkage)
        if one.power not in people:
            people[one.power] = _People.of(train, one.power)
        if where not in spaces:
            spaces[where] = people[one.power].whitened(one.shrinkage, one_sided=train.one_sided)
        if one.strength and (*where, one.group_weight) not in partners:
            partners[*where, one.group_weight] = spaces[where].partners(train, one.group_weight)
        heads.append(
            spaces[where].head(
                partners.get((*where, one.group_weight)) if one.strength else None, one.strength
            )
        )
    return heads


class _Solved(Learner):
    """A head that was learned already."""

    def __init__(self, head: MetricHead) -> None:
        self.head = head

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        return FittedHead(self.head)


@dataclass(frozen=True, slots=True)
class _Sums:
    total: Double  # [components, R]
    people: Double  # [components]
    own: Double  # [R, R]


def _sums(rows: Ints, components: Ints, features: Double) -> _Sums:
    """Sums of distinct people's features by component."""
    people, first = np.unique(rows, return_index=True)
    _, label = np.unique(components[first], return_inverse=True)
    total = np.zeros((int(label.max()) + 1, features.shape[1]))
    np.add.at(total, label, features[people])
    return _Sums(
        total, np.bincount(label).astype(np.float64), features[people].T @ features[people]
    )


def _powered(features: Floats, power: float) -> Double:
    x = unit_rows(features).astype(np.float64)
    return x if power == 1 else unit_rows(np.sign(x) * np.abs(x) ** power).astype(np.float64)

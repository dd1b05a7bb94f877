"""The learner `metric`: whitening and a metric, solved in closed form from few pairs.

Features are powered, centered per side, whitened with a shrunk covariance and scaled to unit
length. In that space, the cross-covariance of partners shows the directions in which they agree. It
is shrunk towards a multiple of the identity (partners agree equally in everything), and each
direction is weighted as in the likelihood ratio of partners against strangers, c / (1 − c²) for a
correlation c (two-covariance model, Brümmer and de Villiers 2010; length normalization,
Garcia-Romero and Espy-Wilson 2011; shrinkage, Ledoit and Wolf 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairmatch.core.arrays import Ints, unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.baselines import check_share
from pairmatch.learning.closed_form_heads import MetricHead, fill
from pairmatch.learning.decompositions import Decompositions, Doubles, People, shrunk_scales

_LEAST_SIMILARITY = 0.01  # lower bound on the prior's similarity of partners
_MOST_CORRELATION = 0.95


class PairMetric(Learner):
    """Whitening and a metric with fixed options; `best` joins several of them.

    Args:
        shrinkage: Share of the identity in the covariance that whitens, in (0, 1]; 1 is no
            whitening.
        strength: Share of the observed agreement of partners in the metric, in [0, 1); 0 is
            whitened cosine.
        group_weight: Weight of two people who are connected through groups or partners without
            being a known match, at least 0; a match weighs 1.
        power: Exponent that evens out large and small features, in (0, 1].
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
                "`PairMetric(...)`: strength must be in [0, 1) and group_weight at least 0, got "
                f"{strength}, {group_weight}."
            )
        self.shrinkage = shrinkage
        self.strength = strength
        self.group_weight = group_weight
        self.power = power

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Solves two eigenvalue problems."""
        return FittedHead(solve_metrics(Decompositions(train), [self])[0])


def solve_metrics(
    decompositions: Decompositions, metrics: Sequence[PairMetric]
) -> list[ProjectionHead]:
    """Heads of several metrics on the same pairs; what they share is computed once."""
    train = decompositions.train
    spaces: dict[tuple[float, float], _Space] = {}
    agreements: dict[tuple[float, float, float], _Agreement] = {}
    heads = []
    for metric in metrics:
        space_key = (metric.power, metric.shrinkage)
        agreement_key = (*space_key, metric.group_weight)
        if space_key not in spaces:
            people = decompositions.people(metric.power)
            spaces[space_key] = _Space.of(people, metric.shrinkage, one_sided=train.one_sided)
        space = spaces[space_key]
        if metric.strength and agreement_key not in agreements:
            agreements[agreement_key] = space.agreement(train, metric.group_weight)
        agreement = agreements[agreement_key] if metric.strength else None
        heads.append(space.head(agreement, metric.strength))
    return heads


@dataclass(frozen=True, slots=True)
class _Agreement:
    """How partners agree: mean similarity, and its eigenvalues [R] and eigenvectors [D, R]."""

    similarity: float
    values: Doubles
    vectors: Doubles


@dataclass(frozen=True, slots=True)
class _Space:
    """Whitened training people, in the coordinates of their directions."""

    people: People
    scale: Doubles  # [R]
    rest: float
    a: Doubles  # [N, R]
    b: Doubles  # [M, R]

    @classmethod
    def of(cls, people: People, shrinkage: float, *, one_sided: bool) -> _Space:
        """Coordinates with shrunk unit covariance, scaled to length √D."""
        width = len(people.basis)
        count = len(people.coordinates)
        scale, rest = shrunk_scales(people.singular, count, width, shrinkage)
        white = np.float64(math.sqrt(width)) * unit_rows(people.coordinates * scale)
        others = white if one_sided else white[people.size_a :]
        return cls(people, scale, rest, white[: people.size_a], others)

    def agreement(self, train: PairedFeatures, group_weight: float) -> _Agreement:
        """Symmetric cross-covariance of matches and, by `group_weight`, of connected people."""
        rows_a, rows_b = train.matches.T
        total = self.a[rows_a].T @ self.b[rows_b]
        count = float(len(rows_a))
        if group_weight:
            connected, pairs = self._connected(train)
            matched = (total + total.T) / 2 if train.one_sided else total
            total = total + group_weight * (connected - matched)
            count += group_weight * (pairs - count)
        basis = self.people.basis
        total = (total + total.T) / (2 * count)
        values, vectors = np.zeros(0), np.zeros((0, 0))
        if total.size:
            values, vectors = np.linalg.eigh(total)
        similarity = max(float(values.sum()) / len(basis), _LEAST_SIMILARITY)
        return _Agreement(similarity, values, basis @ vectors)

    def _connected(self, train: PairedFeatures) -> tuple[Doubles, float]:
        """Sum of products over all pairs of people of one component, and the number of pairs."""
        rows_a, rows_b = train.matches.T
        if not train.one_sided:
            first = _ComponentSums.of(rows_a, train.components, self.a)
            second = _ComponentSums.of(rows_b, train.components, self.b)
            return first.total.T @ second.total, float(first.people @ second.people)
        rows = np.concatenate([rows_a, rows_b])
        sums = _ComponentSums.of(rows, np.tile(train.components, 2), self.a)
        # The product also includes each person with themselves, and each pair twice
        products = (sums.total.T @ sums.total - sums.with_themselves) / 2
        return products, float((sums.people @ sums.people - sums.people.sum()) / 2)

    def head(self, agreement: _Agreement | None, strength: float) -> ProjectionHead:
        """The head for a share of the observed agreement; whitened cosine if it is None."""
        people = self.people
        head = MetricHead(dim=people.basis.shape[0], rank=people.basis.shape[1], power=people.power)
        values: dict[str, object] = {
            "mean": people.means,
            "whitening_basis": people.basis,
            "whitening_scale": self.scale,
            "whitening_rest": self.rest,
        }
        if agreement is not None:
            prior = (1 - strength) * agreement.similarity
            correlation = np.append(prior + strength * agreement.values, prior)
            correlation = np.clip(correlation, 0, _MOST_CORRELATION)
            gains = np.sqrt(correlation / (1 - correlation**2))
            values |= {
                "metric_basis": agreement.vectors,
                "metric_scale": gains[:-1],
                "metric_rest": gains[-1],
            }
        return fill(head, **values)


@dataclass(frozen=True, slots=True)
class _ComponentSums:
    """Sums of distinct people's features by component."""

    total: Doubles  # [components, R]
    people: Doubles  # [components]
    with_themselves: Doubles  # [R, R]

    @classmethod
    def of(cls, rows: Ints, components: Ints, features: Doubles) -> _ComponentSums:
        people, first = np.unique(rows, return_index=True)
        _, label = np.unique(components[first], return_inverse=True)
        total = np.zeros((int(label.max()) + 1, features.shape[1]))
        np.add.at(total, label, features[people])
        products = features[people].T @ features[people]
        return cls(total, np.bincount(label).astype(np.float64), products)

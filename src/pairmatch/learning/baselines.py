"""Closed-form learners: the baselines that a trained head must beat.

They need no early stopping or tuning, so they use the whole training part.
"""

from __future__ import annotations

import numpy as np

from pairmatch.core.arrays import Vectors, unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.closed_form_heads import (
    MetricHead,
    PartnerMapHead,
    PopularityHead,
    SideMapHead,
    fill,
)
from pairmatch.learning.decompositions import (
    Doubles,
    MatchedSides,
    Spectrum,
    centered,
    leading_svd,
    shrunk_scales,
    side_means,
    thin_svd,
)
from pairmatch.learning.heads import IdentityHead


class Frozen(Learner):
    """Cosine of the unchanged features: what the backbone captures without any pairs."""

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Learns nothing."""
        return FittedHead(self.untrained_head(train.dim))

    def untrained_head(self, dim: int) -> ProjectionHead:
        """The identity: this learner needs no pairs."""
        return IdentityHead(dim=dim).eval()


class Centred(Learner):
    """Cosine after subtracting each side's training mean from unit-length features."""

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Computes the means."""
        return FittedHead(fill(MetricHead(dim=train.dim), mean=side_means(train)))


class Whitened(Learner):
    """Cosine after centering each side and whitening with a shrunk covariance.

    The weight of a direction falls with its variance among training people of both sides (Ledoit
    and Wolf 2004 for the shrinkage; Kessy, Lewin and Strimmer 2018 for ZCA whitening).

    Args:
        shrinkage: Share of the identity in the covariance, in (0, 1]; 1 is `centred`.
    """

    def __init__(self, *, shrinkage: float = 0.9) -> None:
        check_share("Whitened", "shrinkage", shrinkage)
        self.shrinkage = shrinkage

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Computes means and covariance."""
        means = side_means(train)
        sides = [train.a] if train.b is None else [train.a, train.b]
        rows = np.concatenate(
            [centered(side, mean) for side, mean in zip(sides, means, strict=False)]
        )
        _, singular, directions = thin_svd(rows)
        scale, rest = shrunk_scales(singular, len(rows), train.dim, self.shrinkage)
        head = MetricHead(dim=train.dim, rank=len(directions), metric_rank=0)
        return FittedHead(
            fill(
                head,
                mean=means,
                whitening_basis=directions.T,
                whitening_scale=scale / rest,  # the length is normalized anyway
                whitening_rest=1.0,
            )
        )


class CCA(Learner):
    """Regularized canonical correlation analysis: directions in which partners vary together.

    Hotelling 1936. Both sides are centered, whitened with shrunk covariances (Vinod 1976), and
    projected on the leading singular vectors of their remaining cross-covariance, each weighted by
    a power of its correlation (Gong et al. 2014).

    Args:
        width: Maximum number of directions.
        shrinkage: Share of the identity in the covariances, in (0, 1].
        power: Exponent of the correlations; 0 weights all directions equally.
    """

    def __init__(self, *, width: int = 32, shrinkage: float = 0.9, power: float = 1.0) -> None:
        check_share("CCA", "shrinkage", shrinkage)
        if width < 1 or power < 0:
            raise ConfigurationError(
                f"`CCA(...)`: width must be at least 1 and power at least 0, got {width}, {power}."
            )
        self.width = width
        self.shrinkage = shrinkage
        self.power = power

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Solves for both maps in closed form."""
        return FittedHead(self.solve(MatchedSides.of(train)))

    def solve(self, sides: MatchedSides) -> ProjectionHead:
        """The head of pairs whose decomposition is known."""
        (s_a, v_a), (s_b, v_b) = sides.a, sides.b
        count, dim = sides.count, sides.means.shape[1]
        scale_a, _ = shrunk_scales(s_a, count, dim, self.shrinkage)
        scale_b, _ = shrunk_scales(s_b, count, dim, self.shrinkage)
        # The cross-covariance of whitened rows lies in the row spaces of both sides
        cross = (scale_a * s_a)[:, None] * sides.overlap * (scale_b * s_b) / count
        left, correlations, right = leading_svd(cross, self.width)
        if not len(correlations):  # identical people: nothing to project on
            head = SideMapHead(dim=dim, width=1)
            return fill(head, mean=sides.means, maps=np.zeros((2, dim, 1)))
        weights = (correlations / max(correlations.max(), 1e-12)) ** (self.power / 2)
        maps = [
            v_a.T @ (scale_a[:, None] * left * weights),
            v_b.T @ (scale_b[:, None] * right * weights),
        ]
        head = SideMapHead(dim=dim, width=len(weights))
        return fill(head, mean=sides.means, maps=np.stack(maps))


class Ridge(Learner):
    """Ridge regression from a person's features to their partner's, in both directions.

    The score is the sum of the two cosines.

    Args:
        strength: Penalty, as a multiple of the mean eigenvalue of the features' scatter over its
            rank; above 0.
    """

    def __init__(self, *, strength: float = 1.0) -> None:
        if strength <= 0:
            raise ConfigurationError(f"`Ridge(strength=...)` must be positive, got {strength}.")
        self.strength = strength

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Solves both regressions in closed form."""
        return FittedHead(self.solve(MatchedSides.of(train)))

    def solve(self, sides: MatchedSides) -> ProjectionHead:
        """The head of pairs whose decomposition is known."""
        maps = [
            _ridge(sides.a, sides.b, sides.overlap, self.strength),
            _ridge(sides.b, sides.a, sides.overlap.T, self.strength),
        ]
        head = PartnerMapHead(dim=sides.means.shape[1])
        return fill(head, mean=sides.means, maps=np.stack(maps))


class Popularity(Learner):
    """The same list for every query: candidates by cosine with the other side's mean person.

    It ignores individual taste: the share of a ranking that it explains is popularity (hubness),
    not compatibility.
    """

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Computes the mean person of each side."""
        means = unit_rows(side_means(train))
        return FittedHead(fill(PopularityHead(dim=train.dim), mean=means))


def check_share(learner: str, option: str, value: float) -> None:
    """Raises ConfigurationError unless a share is in (0, 1]."""
    if not 0 < value <= 1:
        raise ConfigurationError(f"`{learner}({option}=...)` must be in (0, 1], got {value}.")


def _ridge(inputs: Spectrum, targets: Spectrum, overlap: Doubles, strength: float) -> Vectors:
    """[D, D] float32 map W that minimizes ‖X W − Y‖² + λ‖W‖²."""
    singular, directions = inputs
    singular_y, directions_y = targets
    penalty = strength * max((singular**2).sum() / max(len(singular), 1), 1e-12)
    between = (singular / (singular**2 + penalty))[:, None] * overlap * singular_y
    first, second, third = (
        factor.astype(np.float32) for factor in (directions.T, between, directions_y)
    )
    product: Vectors = np.linalg.multi_dot([first, second, third])
    return product

"""Learners that cross-validation compares: the trained head, and the baselines that any gain must be a gain over.

All but `Contrastive` are closed forms: they have nothing to stop early or to tune, and use the
whole training part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from pairmatch.core.arrays import Floats, unit_rows
from pairmatch.core.config import PartSpec, TrainingConfig
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Learner, Projection
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Side
from pairmatch.learning.heads import FittedHead
from pairmatch.learning.trainer import Trainer

Double = npt.NDArray[np.float64]


class Contrastive(Learner):
    """A projection head trained by contrast; the recipe, unless told otherwise.

    Early stopping looks at a validation part that is taken from the training pairs, by component.

    Args:
        head: As `Trainer` takes it.
        loss: As `Trainer` takes it.
        training: Numbers of the run, as a `TrainingConfig` or its fields; its seed is replaced by
            that of `fit`.
        validation: Share of the training pairs that early stopping looks at, in [0, 1); the
            recipe's 15 of 85.
    """

    def __init__(
        self,
        *,
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        training: TrainingConfig | Mapping[str, Any] | None = None,
        validation: float = 0.15 / 0.85,
    ) -> None:
        if not 0 <= validation < 1:
            raise ConfigurationError(
                f"`Contrastive(validation=...)` must be in [0, 1), got {validation}."
            )
        self.head, self.loss, self.validation = head, loss, validation
        self.training = TrainingConfig(**training) if isinstance(training, Mapping) else training

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Trains the head with early stopping inside the training part."""
        held_out: dict[str, Any] = {}
        held = int(len(train) * self.validation + 1e-9)
        rest = train
        if held:
            labels = train.parts([len(train) - held, held], seed=seed)
            if all(np.isin(part, train.components).any() for part in labels):
                rest, part = (train.of_components(label) for label in labels)
                held_out = {
                    "validation_a": part.a,
                    "validation_b": part.b,
                    "validation_matches": part.matches,
                }
        config = dataclasses.replace(self.training or TrainingConfig(), seed=seed)
        trainer = Trainer(self.head, self.loss, config, warns=False)
        result = trainer.fit(
            rest.a, rest.b, matches=rest.matches, rejected=rest.rejected, **held_out
        )
        return FittedHead(result.head, result.notes)


class Frozen(Learner):
    """Cosine of the features as they are: what the backbone knows without a single pair."""

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Learns nothing."""
        return lambda features, side: unit_rows(features)


class Centred(Learner):
    """Cosine after the mean of each side's training people is subtracted from unit-length features."""

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Takes the means."""
        means = _means(train)
        return lambda features, side: unit_rows(unit_rows(features) - means[side])


class Whitened(Learner):
    """Cosine after centring per side and whitening with a covariance shrunk towards a multiple of the identity.

    The weight of a direction falls with its variance among training people of both sides (Ledoit
    and Wolf 2004 for the shrinkage; Kessy, Lewin and Strimmer 2018 for ZCA whitening).

    Args:
        shrinkage: Share of the identity, in (0, 1]; 1 is `centred`.
    """

    def __init__(self, *, shrinkage: float = 0.9) -> None:
        check_share("Whitened", "shrinkage", shrinkage)
        self.shrinkage = shrinkage

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Takes means and covariance."""
        means = _means(train)
        rows = np.concatenate([_centred(side, means[name]) for name, side in _sides(train)])
        _, singular, directions = thin_svd(rows)
        scale, rest = shrunk_scales(singular, len(rows), rows.shape[1], self.shrinkage)

        def project(features: Floats, side: Side) -> npt.NDArray[np.float32]:
            own = _centred(features, means[side])
            return unit_rows(rest * own + (own @ directions.T * (scale - rest)) @ directions)

        return project


class CCA(Learner):
    """Regularised canonical correlation analysis: the directions in which partners vary together (Hotelling 1936).

    Both sides are centred, whitened with shrunk covariances (Vinod 1976), and projected on the
    leading singular vectors of what is left of their cross-covariance, each weighted by a power of
    its correlation (Gong et al. 2014).

    Args:
        width: Most directions that are kept.
        shrinkage: Share of the identity in the covariances, in (0, 1].
        power: Of the correlations; 0 weighs all directions alike.
    """

    def __init__(self, *, width: int = 32, shrinkage: float = 0.9, power: float = 1.0) -> None:
        check_share("CCA", "shrinkage", shrinkage)
        if width < 1 or power < 0:
            raise ConfigurationError(
                f"`CCA(...)`: width must be at least 1 and power at least 0, got {width}, {power}."
            )
        self.width, self.shrinkage, self.power = width, shrinkage, power

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Solves for both maps in closed form."""
        means, (a, b) = _means(train), _matched(train)
        (u_a, s_a, v_a), (u_b, s_b, v_b) = thin_svd(a), thin_svd(b)
        scale_a, scale_b = (
            shrunk_scales(s, len(a), a.shape[1], self.shrinkage)[0] for s in (s_a, s_b)
        )
        # The cross-covariance of whitened rows lives in the row spaces of both sides
        cross = (scale_a * s_a)[:, None] * (u_a.T @ u_b) * (scale_b * s_b) / len(a)
        left, correlations, right = _leading(cross, self.width)
        weights = (correlations / max(correlations.max(initial=0), 1e-12)) ** (self.power / 2)
        maps: dict[Side, Double] = {
            "a": v_a.T @ (scale_a[:, None] * left * weights),
            "b": v_b.T @ (scale_b[:, None] * right * weights),
        }

        def project(features: Floats, side: Side) -> npt.NDArray[np.float32]:
            return unit_rows(_centred(features, means[side]) @ maps[side])

        return project


class Ridge(Learner):
    """Ridge regression from a person's features to their partner's, both ways; scores add the two cosines.

    Args:
        strength: Of the penalty, as a multiple of the mean eigenvalue of the features' scatter over
            their rank.
    """

    def __init__(self, *, strength: float = 1.0) -> None:
        if strength <= 0:
            raise ConfigurationError(f"`Ridge(strength=...)` must be positive, got {strength}.")
        self.strength = strength

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Solves both regressions in closed form."""
        means, (a, b) = _means(train), _matched(train)
        to_b, to_a = _ridge(a, b, self.strength), _ridge(b, a, self.strength)

        def project(features: Floats, side: Side) -> npt.NDArray[np.float32]:
            own = _centred(features, means[side])
            mapped = unit_rows(own @ (to_b if side == "a" else to_a))
            halves = (mapped, unit_rows(own)) if side == "a" else (unit_rows(own), mapped)
            return unit_rows(np.concatenate(halves, axis=1))

        return project


class Popularity(Learner):
    """Everybody gets the same list: candidates by cosine with the mean person of the other side in training.

    Taste plays no part in it, so what it explains of a ranking is popularity (hubness), not
    compatibility.
    """

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Takes the mean person of either side."""
        crowds = {side: unit_rows(_mean(rows)) for side, rows in _sides(train)}
        crowds.setdefault("b", crowds["a"])

        def project(features: Floats, side: Side) -> npt.NDArray[np.float32]:
            # (x, crowd of a) · (crowd of b, y) = x · crowd of b + crowd of a · y: the first term is
            # the same for all y
            own = unit_rows(features)
            crowd = np.broadcast_to(crowds[side], own.shape)
            return unit_rows(np.concatenate((own, crowd) if side == "a" else (crowd, own), axis=1))

        return project


def check_share(learner: str, option: str, value: float) -> None:
    """Raises ConfigurationError unless a share is in (0, 1]."""
    if not 0 < value <= 1:
        raise ConfigurationError(f"`{learner}({option}=...)` must be in (0, 1], got {value}.")


def _sides(train: PairedFeatures) -> list[tuple[Side, Floats]]:
    return [("a", train.a)] if train.b is None else [("a", train.a), ("b", train.b)]


def _mean(rows: Floats) -> npt.NDArray[np.float32]:
    return unit_rows(rows).mean(0, keepdims=True, dtype=np.float64).astype(np.float32)


def _means(train: PairedFeatures) -> dict[Side, npt.NDArray[np.float32]]:
    """[1, D] mean of unit-length features by side; one mean for both in one-sided sets."""
    means: dict[Side, npt.NDArray[np.float32]] = {side: _mean(rows) for side, rows in _sides(train)}
    means.setdefault("b", means["a"])
    return means


def _centred(features: Floats, mean: npt.NDArray[np.float32]) -> Double:
    return (unit_rows(features) - mean).astype(np.float64)


def _matched(train: PairedFeatures) -> tuple[Double, Double]:
    """Centred features of partners, row by row; in one-sided sets each pair both ways round."""
    means = _means(train)
    a = _centred(train.a, means["a"])
    b = a if train.b is None else _centred(train.b, means["b"])
    i, j = train.matches.T
    if train.one_sided:
        i, j = np.concatenate([i, j]), np.concatenate([j, i])
    return a[i], b[j]


def thin_svd(rows: Double) -> tuple[Double, Double, Double]:
    """Thin singular value decomposition [N, R], [R], [R, D] by the smaller Gram matrix, without what is noise to it."""
    wide = len(rows) <= rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = values > max(values[-1], 1e-300) * 1e-12
    singular, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if wide:
        return vectors, singular, (vectors / singular).T @ rows
    return rows @ (vectors / singular), singular, vectors.T


def _leading(matrix: Double, count: int) -> tuple[Double, Double, Double]:
    """Leading singular vectors [N, R], values [R] and [M, R].

    No more than `count`, and none that is noise.
    """
    size = len(matrix)
    if not matrix.size:  # everybody looks alike: there is no direction at all
        return np.zeros((size, 0)), np.zeros(0), np.zeros((matrix.shape[1], 0))
    values, left = eigh(matrix @ matrix.T, subset_by_index=(max(size - count, 0), size - 1))
    kept = values > max(values[-1], 1e-300) * 1e-12
    singular, left = np.sqrt(values[kept])[::-1], left[:, kept][:, ::-1]
    return left, singular, matrix.T @ (left / singular)


def shrunk_scales(
    singular: Double, count: int, width: int, shrinkage: float
) -> tuple[Double, float]:
    """Inverse root of a shrunk covariance.

    Its scale in each direction of the rows [R], and everywhere else.
    """
    variances = singular**2 / max(count, 1)
    level = shrinkage * max(variances.sum() / width, 1e-12)
    return ((1 - shrinkage) * variances + level) ** -0.5, level**-0.5


def _ridge(inputs: Double, targets: Double, strength: float) -> Double:
    """[D, D] map W that minimises ‖X W − Y‖² + λ‖W‖²."""
    u, singular, directions = thin_svd(inputs)
    penalty = strength * max((singular**2).sum() / max(len(singular), 1), 1e-12)
    return (directions.T * (singular / (singular**2 + penalty))) @ (u.T @ targets)

"""Linear algebra that closed-form learners share: thin SVD, shrunk covariances, centered rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, solve
from scipy.sparse import csr_array

from pairmatch.core.arrays import Floats, Vectors, unit_rows
from pairmatch.core.paired_features import PairedFeatures

Doubles = npt.NDArray[np.float64]
#: Left vectors [N, R], singular values [R] and right vectors [R, D].
SVD = tuple[Doubles, Doubles, Doubles]
#: Singular values [R] and right vectors [R, D].
Spectrum = tuple[Doubles, Doubles]

_RELATIVE_NOISE = 1e-12  # eigenvalues below this share of the largest are rounding noise


def thin_svd(rows: Doubles) -> SVD:
    """Thin singular value decomposition by the smaller Gram matrix, without noise directions.

    Args:
        rows: [N, D].

    Returns:
        Left vectors [N, R], singular values [R], right vectors [R, D].
    """
    wide = len(rows) <= rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = values > max(values[-1], 1e-300) * _RELATIVE_NOISE
    singular = np.sqrt(values[kept])
    vectors = vectors[:, kept]
    if wide:
        return vectors, singular, (vectors / singular).T @ rows
    return rows @ (vectors / singular), singular, vectors.T


def leading_svd(matrix: Doubles, count: int) -> tuple[Doubles, Doubles, Doubles]:
    """At most `count` leading singular directions, without noise directions.

    Args:
        matrix: [N, M].
        count: Maximum number of directions.

    Returns:
        Left vectors [N, R], singular values [R], right vectors [M, R], descending.
    """
    size = len(matrix)
    if not matrix.size:  # identical people: there is no direction at all
        return np.zeros((size, 0)), np.zeros(0), np.zeros((matrix.shape[1], 0))
    values, left = eigh(matrix @ matrix.T, subset_by_index=(max(size - count, 0), size - 1))
    kept = values > max(values[-1], 1e-300) * _RELATIVE_NOISE
    singular = np.sqrt(values[kept])[::-1]
    left = left[:, kept][:, ::-1]
    return left, singular, matrix.T @ (left / singular)


def ridge_slope(rows: Doubles, targets: Doubles, penalty: float) -> Doubles:
    """[D] slope w that minimizes ‖X w − y‖² + λ‖w‖².

    Args:
        rows: [N, D].
        targets: [N].
        penalty: λ, above 0.
    """
    if not targets.any():
        return np.zeros(rows.shape[1])
    if len(rows) <= rows.shape[1]:
        gram = rows @ rows.T + penalty * np.eye(len(rows))
        return rows.T @ solve(gram, targets, assume_a="pos")
    scatter = rows.T @ rows + penalty * np.eye(rows.shape[1])
    return solve(scatter, rows.T @ targets, assume_a="pos")


def shrunk_scales(
    singular: Doubles, count: int, width: int, shrinkage: float
) -> tuple[Doubles, float]:
    """Inverse square root of a covariance shrunk towards a multiple of the identity.

    Ledoit and Wolf 2004.

    Args:
        singular: [R] singular values of the centered rows.
        count: Number of rows.
        width: Width D of the rows.
        shrinkage: Share of the identity, in (0, 1].

    Returns:
        The scale along each of the R directions [R], and along all others.
    """
    variances = singular**2 / max(count, 1)
    level = shrinkage * max(variances.sum() / width, 1e-12)
    return ((1 - shrinkage) * variances + level) ** -0.5, level**-0.5


def side_means(train: PairedFeatures) -> Vectors:
    """[2, D] float32 mean of unit-length features of each side; equal in one-sided sets."""
    sides = [train.a, train.a if train.b is None else train.b]
    means = [unit_rows(side).mean(0, dtype=np.float64) for side in sides]
    return np.stack(means).astype(np.float32)


def centered(features: Floats, mean: Vectors) -> Doubles:
    """[N, D] float64 unit-length features minus a mean [D]."""
    return (unit_rows(features) - mean).astype(np.float64)


def powered(features: Floats, power: float) -> Doubles:
    """[N, D] float64 unit-length features whose large and small values are evened out.

    Args:
        features: [N, D].
        power: Exponent of the absolute values, in (0, 1]; 1 leaves them unchanged.
    """
    x = unit_rows(features).astype(np.float64)
    if power == 1:
        return x
    return unit_rows(np.sign(x) * np.abs(x) ** power).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class MatchedSides:
    """The thin SVD of each side's centered features, partners row by row, and their overlap.

    Attributes:
        means: [2, D] float32 mean of each side.
        count: Number P of matches; in one-sided sets, each is there in both orders.
        a: Singular values [R_a] and right vectors [R_a, D] of the [P, D] rows of side a.
        b: The same of side b.
        overlap: [R_a, R_b] products of the left vectors of both sides.
    """

    means: Vectors
    count: int
    a: Spectrum
    b: Spectrum
    overlap: Doubles

    @classmethod
    def of(cls, train: PairedFeatures) -> MatchedSides:
        """Decomposes both sides of all matches.

        A person of n matches stands for n equal rows: one row, √n times as long.
        """
        means = side_means(train)
        rows_a, rows_b = train.matches.T
        if train.one_sided:
            rows_a, rows_b = np.concatenate([rows_a, rows_b]), np.concatenate([rows_b, rows_a])
        people_a, first = np.unique(rows_a, return_inverse=True)
        people_b, second = np.unique(rows_b, return_inverse=True)
        matched = csr_array((np.ones(len(first)), (first, second)))
        root_a, root_b = np.sqrt(matched.sum(1))[:, None], np.sqrt(matched.sum(0))[:, None]
        left_a, *a = thin_svd(root_a * centered(train.a[people_a], means[0]))
        if train.b is None:
            left_b, b = left_a, a
        else:
            left_b, *b = thin_svd(root_b * centered(train.b[people_b], means[1]))
        overlap = (left_a / root_a).T @ (matched @ (left_b / root_b))
        return cls(means, len(first), (a[0], a[1]), (b[0], b[1]), overlap)


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """People of both sides, powered and centered per side, in the directions in which they vary.

    Attributes:
        power: Exponent of the features.
        means: [2, D] mean of each side.
        coordinates: [N + M, R] along the directions, side a first; [N, R] in one-sided sets.
        singular: [R] ascending.
        basis: [D, R] orthonormal directions, whose span contains all people.
        size_a: Number N of people of side a.
    """

    power: float
    means: Doubles
    coordinates: Doubles
    singular: Doubles
    basis: Doubles
    size_a: int

    @classmethod
    def of(cls, train: PairedFeatures, power: float = 1.0) -> People:
        """Decomposes the people of both sides together."""
        a = powered(train.a, power)
        b = a if train.b is None else powered(train.b, power)
        means = np.stack([a.mean(0), b.mean(0)])
        rows = a - means[0] if train.b is None else np.concatenate([a - means[0], b - means[1]])
        left, singular, directions = thin_svd(rows)
        return cls(power, means, left * singular, singular, directions.T, len(a))


class Decompositions:
    """Decompositions of one set of pairs, each computed when a learner first needs it.

    Args:
        train: Features and matches.
    """

    def __init__(self, train: PairedFeatures) -> None:
        self.train = train
        self._people: dict[float, People] = {}

    @cached_property
    def matched(self) -> MatchedSides:
        """Partners row by row."""
        return MatchedSides.of(self.train)

    def people(self, power: float = 1.0) -> People:
        """People of both sides together, with a power of their features."""
        if power not in self._people:
            self._people[power] = People.of(self.train, power)
        return self._people[power]

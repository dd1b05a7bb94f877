"""Linear algebra that closed-form learners share: thin SVD, shrunk covariances, centered rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from pairmatch.core.arrays import Floats, Vectors, unit_rows
from pairmatch.core.paired_features import PairedFeatures

Doubles = npt.NDArray[np.float64]
#: Left vectors [N, R], singular values [R] and right vectors [R, D].
SVD = tuple[Doubles, Doubles, Doubles]

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


@dataclass(frozen=True, slots=True, eq=False)
class MatchedSides:
    """Centered features of partners, row by row, and the thin SVD of each side.

    Attributes:
        means: [2, D] float32 mean of each side.
        a: SVD of the [P, D] rows of side a. In one-sided sets, each pair is there in both orders.
        b: The same of side b.
    """

    means: Vectors
    a: SVD
    b: SVD

    @classmethod
    def of(cls, train: PairedFeatures) -> MatchedSides:
        """Decomposes both sides of all matches."""
        means = side_means(train)
        a = centered(train.a, means[0])
        b = a if train.b is None else centered(train.b, means[1])
        rows_a, rows_b = train.matches.T
        if train.one_sided:
            rows_a, rows_b = np.concatenate([rows_a, rows_b]), np.concatenate([rows_b, rows_a])
        return cls(means, thin_svd(a[rows_a]), thin_svd(b[rows_b]))

"""Traits of people that do not depend on the axes of an embedding: what re-rankers learn from.

They are defined without the pairs. A map from the embeddings of each fold to the axes of the final
head would carry over who matches whom: even on random features, a re-ranker that is fitted and
judged in these axes seems to raise MRR.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve

from pairmatch.core.arrays import Vectors
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.second_stage import Traits
from pairmatch.learning.decompositions import Doubles, leading_svd

_TRAITS = 32
_AXES = 16
_MOST_PEOPLE = 2000
_RIDGE = 1e-2


def components(data: PairedFeatures, *, seed: int = 0) -> tuple[Doubles, Doubles]:
    """[N, R] and [M, R] coordinates of both sides along the components of their features.

    The principal components are of both sides together, each centered, at most 32, and of 2,000
    random people if there are more. Each has variance 1. In one-sided sets both results are equal.
    """
    sides = [data.a.astype(np.float64)]
    if data.b is not None:
        sides.append(data.b.astype(np.float64))
    sides = [side - side.mean(0) for side in sides]
    rows = _some(np.concatenate(sides), seed)
    directions = leading_svd(rows, _TRAITS)[2]
    spreads = np.sqrt(((rows @ directions) ** 2).mean(0))
    coordinates = [side @ (directions / spreads) for side in sides]
    return coordinates[0], coordinates[-1]


def fit_traits(
    vectors: tuple[Vectors, Vectors], targets: tuple[Doubles, Doubles], *, seed: int = 0
) -> Traits:
    """What the embeddings of a head tell of the components, by ridge regression.

    Args:
        vectors: [N, K] and [M, K] float32 embeddings of training people.
        targets: [N, R] and [M, R] what `components` returned for them.
        seed: Seed of the choice of 2,000 people of each side, if there are more.
    """
    weights, offsets, means, axes, residuals = [], [], [], [], []
    for embeddings, target in zip(vectors, targets, strict=True):
        rows = _some(np.concatenate([embeddings.astype(np.float64), target], axis=1), seed)
        x, y = rows[:, : embeddings.shape[1]], rows[:, embeddings.shape[1] :]
        mean = x.mean(0)
        weight = _ridge(x - mean, y - y.mean(0))
        along = leading_svd(x - mean, min(_AXES, *x.shape))
        variances = along[1] ** 2 / len(x)
        left = max(min(len(x) - 1, x.shape[1]) - len(variances), 1)
        weights.append(weight)
        offsets.append(y.mean(0) - mean @ weight)
        means.append(mean)
        axes.append(_padded(along[2] * np.sqrt(variances)))
        residuals.append(max(x.var(0).sum() - variances.sum(), 0) / left)
    arrays = (np.stack(weights), np.stack(offsets), np.stack(means), np.stack(axes), residuals)
    return Traits(*(np.ascontiguousarray(value, np.float32) for value in arrays))


def _padded(axes: Doubles) -> Doubles:
    """[K, 16] axes; those that a side does not have are zeros."""
    return np.pad(axes, [(0, 0), (0, _AXES - axes.shape[1])])


def _ridge(x: Doubles, y: Doubles) -> Doubles:
    """[K, R] weights of centered rows, by the smaller of the two Gram matrices."""
    penalty = _RIDGE * max(float((x**2).sum()) / len(x), 1e-12)
    if len(x) <= x.shape[1]:
        gram = x @ x.T + penalty * np.eye(len(x))
        return x.T @ solve(gram, y, assume_a="pos")
    scatter = x.T @ x + penalty * np.eye(x.shape[1])
    return solve(scatter, x.T @ y, assume_a="pos")


def _some(rows: Doubles, seed: int) -> Doubles:
    if len(rows) <= _MOST_PEOPLE:
        return rows
    return rows[np.random.default_rng(seed).choice(len(rows), _MOST_PEOPLE, replace=False)]

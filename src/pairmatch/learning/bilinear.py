"""Penalized logistic regression on two people's coordinates and on their products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.decompositions import Doubles, centered, side_means, thin_svd
from pairmatch.learning.side_answers import SideAnswers

_ROWS = 65_536
_ITERATIONS = 300


@dataclass(frozen=True, slots=True)
class Prior:
    """Standard deviations of the log odds before any answer.

    Attributes:
        effect: Of the effect of one person, for the asker and for the candidate; above 0.
        taste: Of the effect of their combination; 0 leaves it out.
    """

    effect: float
    taste: float


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """Leading principal coordinates of unit-length features, with mean square length 1 per side.

    Attributes:
        means: [2, D] mean of each side.
        maps: [2, D, R] from centered features to coordinates.
        a: [N, R] coordinates of the people of side a.
        b: [M, R] the same for side b; those of side a in one-sided sets.
    """

    means: Doubles
    maps: Doubles
    a: Doubles
    b: Doubles

    @classmethod
    def of(cls, data: PairedFeatures, rank: int) -> Coordinates:
        """Computes means and directions; sides with fewer directions are padded with zeros."""
        means = side_means(data).astype(np.float64)
        rows = [centered(data.a, means[0])]
        if data.b is not None:
            rows.append(centered(data.b, means[1]))
        maps = np.zeros((2, data.dim, min(rank, data.dim)))
        for side, people in enumerate(rows):
            _, singular, directions = thin_svd(people)
            kept = np.argsort(-singular)[: maps.shape[2]]
            scale = np.sqrt(len(people) / max((singular[kept] ** 2).sum(), 1e-300))
            maps[side, :, : len(kept)] = directions[kept].T * scale
        if data.one_sided:
            maps[1] = maps[0]
        return cls(means, maps, rows[0] @ maps[0], rows[-1] @ maps[1])


def fit_bilinear(x: Doubles, y: Doubles, answers: SideAnswers, prior: Prior) -> Doubles:
    """The most probable form F, with log odds [1, x] F [1, y]ᵀ of a yes.

    Args:
        x: [N, R] coordinates of askers.
        y: [M, R] coordinates of candidates.
        answers: Rows of `x` and `y`, with a yes or no.
        prior: Gaussian priors of the coefficients; the constant has none.

    Returns:
        [R + 1, R + 1] float64.
    """
    answers = answers.select(np.lexsort((answers.candidates, answers.askers)))
    starts = np.searchsorted(answers.askers, np.arange(len(x) + 1))
    shape = (len(x), len(y))
    rank_x, rank_y = x.shape[1], y.shape[1]
    ends = np.cumsum([1, rank_x, rank_y])

    def form_of(parameters: Doubles) -> Doubles:
        form = np.zeros((rank_x + 1, rank_y + 1))
        constant, asker, candidate, taste = np.split(parameters, ends)
        form[0, 0] = constant[0]
        form[1:, 0] = prior.effect * asker
        form[0, 1:] = prior.effect * candidate
        if prior.taste:
            form[1:, 1:] = prior.taste * taste.reshape(rank_x, rank_y)
        return form

    def objective(parameters: Doubles) -> tuple[float, Doubles]:
        odds = log_odds(form_of(parameters), x, y, answers)
        signed = np.where(answers.yes, -odds, odds)
        loss = answers.weights @ np.logaddexp(0, signed)
        residual = answers.weights * (expit(odds) - answers.yes)
        of_askers = np.bincount(answers.askers, residual, len(x)) @ x
        of_candidates = np.bincount(answers.candidates, residual, len(y)) @ y
        gradient = [
            np.array([residual.sum()]),
            prior.effect * of_askers,
            prior.effect * of_candidates,
        ]
        if prior.taste:
            matrix = csr_array((residual, answers.candidates, starts), shape=shape)
            gradient.append(prior.taste * (x.T @ (matrix @ y)).ravel())
        penalty = parameters.copy()
        penalty[0] = 0
        return float(loss + penalty @ penalty / 2), np.concatenate(gradient) + penalty

    share = np.clip(answers.share_of_yes, 1e-6, 1 - 1e-6)
    start = np.zeros(ends[-1] + (rank_x * rank_y if prior.taste else 0))
    start[0] = np.log(share / (1 - share))
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "ftol": 1e-9, "gtol": 1e-4},
    )
    return form_of(result.x)


def log_odds(form: Doubles, x: Doubles, y: Doubles, answers: SideAnswers) -> Doubles:
    """[E] log odds of a yes by a form [R + 1, R + 1]."""
    odds = form[0, 0] + (x @ form[1:, 0])[answers.askers] + (y @ form[0, 1:])[answers.candidates]
    if form[1:, 1:].any():
        wanted = x @ form[1:, 1:]
        for part in _chunks(len(answers)):
            rows = wanted[answers.askers[part]]
            odds[part] += np.einsum("er,er->e", rows, y[answers.candidates[part]])
    return odds


def mean_log_loss(form: Doubles, x: Doubles, y: Doubles, answers: SideAnswers) -> float:
    """Weighted mean of −log probability of the answers."""
    odds = log_odds(form, x, y, answers)
    losses = np.logaddexp(0, np.where(answers.yes, -odds, odds))
    return float(np.average(losses, weights=answers.weights)) if answers.weights.any() else 0.0


def _chunks(count: int) -> Iterator[slice]:
    """Slices that bound the memory of products of coordinates."""
    for start in range(0, count, _ROWS):
        yield slice(start, start + _ROWS)

"""Balanced matching of a whole market from embeddings, without storing the N × M matrix.

Choo and Siow (2006): with surplus s_ij and taste shocks of temperature β, i and j form √(μ_i0 μ_0j)
exp(s_ij / 2β) matches, where μ_i0 and μ_0j are the unused capacities of i and j, and matches and
unused capacity add up to each person's capacity. The solution is found by iterative proportional
fitting (Galichon and Salanié 2021; for recommendation Tomita et al. 2023, in batches for large
markets Nakada et al. 2024). Its logarithm is (s_ij + c_i + c_j) / 2β, so balancing comes down to
one bonus c per person. Ranking by s_ij + c_j is ranking by expected matches, which any search
index can do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pairmatch.core.arrays import Floats, Vectors, check_count, check_positive
from pairmatch.core.errors import ConfigurationError
from pairmatch.market.engines import BalanceEngine, ThisProcess
from pairmatch.market.potentials import (
    Allowed,
    Doubles,
    Market,
    fit_once,
    fit_totals,
    initial_potentials,
)


@dataclass(frozen=True, slots=True, eq=False)
class Balance:
    """A balanced market.

    Attributes:
        temperature: Temperature β. Small values approach the best one-to-one assignment; large
            values spread matches evenly over all pairs.
        bonus_a: [N] float32 bonus of each person of side a, to be added to their score as a
            candidate; the sum ranks by expected matches. Popular people have the lowest bonus; the
            mean is 0.
        bonus_b: [M] float32 bonus of each person of side b.
        unmatched_a: [N] float64 unused capacity of side a.
        unmatched_b: [M] float64 unused capacity of side b.
        matches: Expected number of matches in the whole market.
        iterations: Number of passes over all pairs.
        error: Largest relative difference between a person's capacity and the sum of their matches
            and unused capacity.
    """

    temperature: float
    bonus_a: Vectors
    bonus_b: Vectors
    unmatched_a: Doubles
    unmatched_b: Doubles
    matches: float
    iterations: int
    error: float

    def dense(self, a: Floats, b: Floats) -> Doubles:
        """Expected matches μ of every pair, [N, M] float64; for small markets.

        Args:
            a: [N, K] vectors that were balanced.
            b: [M, K] vectors that were balanced.
        """
        scores = np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
        log_a = np.log(self.unmatched_a) / 2
        log_b = np.log(self.unmatched_b) / 2
        return np.exp(scores / (2 * self.temperature) + log_a[:, None] + log_b[None, :])


def balance(
    a: Floats,
    b: Floats | None = None,
    *,
    temperature: float = 0.05,
    capacity_a: Floats | float = 1.0,
    capacity_b: Floats | float | None = None,
    allowed: Allowed | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
    seed: int = 0,
    engine: BalanceEngine | None = None,
) -> Balance:
    """Balances a market whose surplus is an inner product, s_ij = a_i · b_j.

    If the two sides score each other differently, concatenate both embeddings: `a = [p, q']` and
    `b = [p', q]` yield p·p' + q·q'. A pass costs one matrix product; memory is linear in people.

    Args:
        a: [N, K] finite.
        b: [M, K] finite; None if any two different people in `a` may match.
        temperature: Temperature β > 0, in units of the score.
        capacity_a: Maximum number of matches per person of side a, above 0; a scalar or [N].
        capacity_b: Maximum number of matches per person of side b, a scalar or [M]; by default,
            side a's total, shared evenly. At 1 per person, part of the larger side stays unmatched.
        allowed: Function of the first and last row (exclusive) of a block of side a; returns
            [n, M] bool, whether each pair may match.
        tolerance: Largest acceptable `error`; float32 reaches about 1e-6.
        max_iterations: Maximum number of passes over all pairs.
        seed: Seed for the sample that the initial potentials are estimated from.
        engine: Where passes run, such as `RayEngine` or `ThisProcess("cuda")`; None for the CPU of
            this process. One number per person travels between passes.

    Raises:
        ConfigurationError: Invalid arguments, a temperature too low for float32, or no convergence.
    """
    check_positive("balance(tolerance=...)", tolerance)
    check_count("balance(max_iterations=...)", max_iterations)
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigurationError(
            f"`balance(seed=...)` must be a whole number from 0, got {seed!r}."
        )
    market = Market.of(a, b, temperature, capacity_a, capacity_b, allowed)
    log_a, log_b = initial_potentials(market, seed)
    error = math.inf
    passes = 0
    with (engine or ThisProcess()).balancing(market) as fit:
        while error > tolerance:
            if passes == max_iterations:
                raise ConfigurationError(
                    f"`balance` did not converge in {max_iterations} passes (error {error:.1e}): "
                    "increase `temperature`, `max_iterations` or `tolerance`."
                )
            passes += 1
            log_a, log_b, error = fit_once(market, log_a, log_b, fit)
            if error > tolerance:
                log_a, log_b = fit_totals(market, log_a, log_b)
    unmatched_a = np.exp(2 * log_a)
    unmatched_b = np.exp(2 * log_b)
    return Balance(
        temperature,
        _bonus(log_a, temperature),
        _bonus(log_b, temperature),
        unmatched_a,
        unmatched_b,
        float((market.capacity_b - unmatched_b).sum()) / (2 if market.one_sided else 1),
        passes,
        error,
    )


def _bonus(log: Doubles, temperature: float) -> Vectors:
    return (2 * temperature * (log - log.mean())).astype(np.float32)

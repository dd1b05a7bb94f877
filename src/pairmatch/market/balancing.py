"""Balanced matching of a whole market, from embeddings, without ever holding the N × M matrix.

Choo and Siow (2006): with surplus s_ij and taste shocks of temperature β, i and j match √(μ_i0
μ_0j) exp(s_ij / 2β) times, where μ_i0 and μ_0j is what stays alone, and everybody's capacity is
used up. The solution is found by iterative proportional fitting (Galichon and Salanié 2021; for
recommendation Tomita et al. 2023, in batches for large markets Nakada et al. 2024). The logarithm
of it is (s_ij + c_i + c_j) / 2β: balancing gives everybody one number, the bonus c. Ranking by s_ij
+ c_j is ranking by expected matches, and any search can do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq

from pairmatch.core.arrays import Floats, check_vectors
from pairmatch.core.errors import ConfigurationError

Vectors = npt.NDArray[np.float32]
Allowed = Callable[[int, int], npt.NDArray[np.bool_]]

_STRIP = 2**25  # scores held at once: 128 MiB
_SAMPLE = 4096  # people of a side that the first guess looks at
_LARGEST_EXPONENT = 170.0  # of exp(s / 2β): what float32 can hold on both sides of 1


@dataclass(frozen=True, slots=True, eq=False)
class Balance:
    """A balanced market.

    Attributes:
        temperature: β: small is close to the best one-to-one assignment, large is close to
            everybody with everybody.
        bonus_a: [N] float32: added to the score of each of side a as a candidate, ranks them by
            expected matches. Those whom many want have the lowest; the mean is 0.
        bonus_b: [M] float32 the same of side b.
        unmatched_a: [N] float64: capacity that stays unused.
        unmatched_b: [M] float64.
        matches: Expected number of matches of the whole market.
        iterations: Passes over all pairs.
        error: Largest relative distance of a person's matches and unused capacity from their
            capacity.
    """

    temperature: float
    bonus_a: Vectors
    bonus_b: Vectors
    unmatched_a: npt.NDArray[np.float64]
    unmatched_b: npt.NDArray[np.float64]
    matches: float
    iterations: int
    error: float

    def dense(self, a: Floats, b: Floats) -> npt.NDArray[np.float64]:
        """[N, M] expected matches μ of every pair: for small markets.

        Args:
            a: [N, K] as it was balanced.
            b: [M, K].
        """
        scores = np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
        own, other = np.log(self.unmatched_a) / 2, np.log(self.unmatched_b) / 2
        return np.exp(scores / (2 * self.temperature) + own[:, None] + other[None, :])


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
) -> Balance:
    """Balances a market whose surplus is an inner product: s_ij = a_i · b_j.

    Where the two sides see one another differently, put both side by side: `a = [p, q']`, `b = [p',
    q]` gives p·p' + q·q'. One pass costs one product of the two matrices; memory is linear in
    people.

    Args:
        a: [N, K] finite.
        b: [M, K] finite; None where anyone may match anyone in `a` but themself.
        temperature: β > 0, in units of the score.
        capacity_a: Matches that each of side a has room for, above 0: one number, or [N].
        capacity_b: The same of side b, or [M]. By default the room of side a, shared evenly: the
            smaller side then gets as much attention as it gives. With 1 each, what is too much on
            the larger side stays alone.
        allowed: From the first and the last row (exclusive) of some of side a to [n, M] bool: who
            may match whom.
        tolerance: Of `error`; float32 reaches about 1e-6.
        max_iterations: Most passes over all pairs.
        seed: Of the sample that the first guess is made from.

    Raises:
        ConfigurationError: Arguments that cannot work, a temperature that is too low for float32,
            or no convergence.
    """
    check_vectors("a", a)
    one_sided = b is None
    other = a if b is None else b
    check_vectors("b", other)
    if a.shape[1] != other.shape[1]:
        raise ConfigurationError(
            f"`a` and `b` need one width, got {a.shape[1]} and {other.shape[1]}."
        )
    room_a = _capacities("capacity_a", capacity_a, len(a))
    share = room_a.sum() / len(other) if capacity_b is None else capacity_b
    room_b = room_a if one_sided else _capacities("capacity_b", share, len(other))
    if not 0 < temperature < math.inf:
        raise ConfigurationError(f"`balance(temperature=...)` must be above 0, got {temperature}.")
    left, right = (
        torch.from_numpy(np.require(side, np.float32, ["C", "W"])) for side in (a, other)
    )
    largest = float(left.norm(dim=1).max() * right.norm(dim=1).max()) / (2 * temperature)
    if largest > _LARGEST_EXPONENT:
        lowest = temperature * largest / _LARGEST_EXPONENT
        raise ConfigurationError(
            f"`balance(temperature={temperature})` is too low for scores of this size: use at least {lowest:.2g}."
        )
    left = left / (2 * temperature)
    log_a, log_b = _first_guess(left, right, room_a, room_b, largest, seed)
    strip = max(1, min(len(left), _STRIP // len(right)))
    error, passes = math.inf, 0
    scores, ones = torch.empty(strip, len(right)), torch.ones(len(right))
    while error > tolerance:
        if passes == max_iterations:
            raise ConfigurationError(
                f"`balance` did not converge in {max_iterations} passes (error {error:.1e}): raise `temperature`, "
                "`max_iterations` or `tolerance`."
            )
        passes += 1
        error = 0.0
        columns = np.zeros(len(right))
        shift = torch.from_numpy(log_b.astype(np.float32))
        for start in range(0, len(left), strip):
            stop = min(start + strip, len(left))
            matched = scores[: stop - start]
            torch.addmm(shift, left[start:stop], right.T, out=matched)
            matched += torch.from_numpy(log_a[start:stop].astype(np.float32))[:, None]
            matched.exp_()  # μ by the potentials so far: never far above a capacity, so float32 holds it
            if one_sided:
                own = torch.arange(stop - start)
                matched[own, own + start] = 0
            if allowed is not None:
                matched *= torch.from_numpy(np.ascontiguousarray(allowed(start, stop)))
            total = (matched @ ones).double().numpy()
            before = log_a[start:stop].copy()
            error = max(error, _error(before, total, room_a[start:stop]))
            log_a[start:stop] = _fitted(before, total, room_a[start:stop])
            # With the new potentials of these rows: a whole iteration of both sides in one pass
            change = torch.from_numpy(np.exp(log_a[start:stop] - before).astype(np.float32))
            columns += (change @ matched).numpy()
        error = max(error, _error(log_b, columns, room_b))
        log_b = _fitted(log_b, columns, room_b)
        if error > tolerance:
            log_a, log_b = _levelled(log_a, log_b, room_a, room_b)
    alone_a, alone_b = np.exp(2 * log_a), np.exp(2 * log_b)
    return Balance(
        temperature,
        _bonus(log_a, temperature),
        _bonus(log_b, temperature),
        alone_a,
        alone_b,
        float((room_b - alone_b).sum()) / (2 if one_sided else 1),
        passes,
        error,
    )


def _capacities(name: str, given: Floats | float, people: int) -> npt.NDArray[np.float64]:
    array = np.asarray(given, np.float64)
    if array.ndim and array.shape != (people,):
        raise ConfigurationError(
            f"`{name}` needs one number, or one per person, [{people}], got {list(array.shape)}."
        )
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ConfigurationError(f"`{name}` must be finite and above 0.")
    return np.broadcast_to(array, (people,)).copy()


def _fitted(
    log: npt.NDArray[np.float64], total: npt.NDArray[np.float64], room: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """New log potentials: the root A of A² + A·(total / A_before) = room."""
    half = total / (2 * np.exp(log))
    return np.log(room) - np.log(np.sqrt(room + half**2) + half)


def _error(
    log: npt.NDArray[np.float64], total: npt.NDArray[np.float64], room: npt.NDArray[np.float64]
) -> float:
    return float(np.abs((np.exp(2 * log) + total) / room - 1).max())


def _levelled(
    log_a: npt.NDArray[np.float64],
    log_b: npt.NDArray[np.float64],
    room_a: npt.NDArray[np.float64],
    room_b: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Potentials shifted by one number per side, so that both sides' sums are right at once.

    Fitting alone moves these sums slowest, by min(N, M) / max(N, M) a pass. `log_b` was fitted
    last, so what is matched is known; the market of two lumps that is left is solved exactly.
    """
    alone_a, alone_b = float(np.exp(2 * log_a).sum()), float(np.exp(2 * log_b).sum())
    total_a, total_b = float(room_a.sum()), float(room_b.sum())
    matched = total_b - alone_b
    if min(matched, alone_a, alone_b) <= 0:
        return log_a, log_b

    def shift_a(shift_b: float) -> float:
        return math.log1p(-alone_b * math.expm1(2 * shift_b) / matched) - shift_b

    def surplus(shift_b: float) -> float:  # of side a, falling
        return (
            alone_a * math.exp(2 * shift_a(shift_b))
            + total_b
            - alone_b * math.exp(2 * shift_b)
            - total_a
        )

    low, high = -10.0, min(10.0, math.log(total_b / alone_b) / 2 * (1 - 1e-9))
    if surplus(low) <= 0 or surplus(high) >= 0:
        return log_a, log_b
    shift_b = brentq(surplus, low, high)
    return log_a + shift_a(shift_b), log_b + shift_b


def _first_guess(
    left: torch.Tensor,
    right: torch.Tensor,
    room_a: npt.NDArray[np.float64],
    room_b: npt.NDArray[np.float64],
    largest: float,
    seed: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Log potentials of both sides, from a sample of each that stands for all."""
    rng = np.random.default_rng(seed)
    some_a, some_b = (
        np.sort(rng.choice(len(side), min(_SAMPLE, len(side)), replace=False))
        for side in (left, right)
    )
    weight_a, weight_b = len(left) / len(some_a), len(right) / len(some_b)
    scores = (left[some_a] @ right[some_b].T).double().numpy() - largest
    kernel = np.exp(scores)
    # Potentials are held times exp(largest / 2), since the kernel is held divided by exp(largest)
    scale = math.exp(min(largest, _LARGEST_EXPONENT) / 2)

    def solved(
        total: npt.NDArray[np.float64], room: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        half = total * scale / 2
        return scale * room / (np.sqrt(room + half**2) + half)

    own_b = np.ones(len(some_b))
    own_a = np.ones(len(some_a))
    for _ in range(50):
        own_a = solved(weight_b * (kernel @ own_b), room_a[some_a])
        new = solved(weight_a * (own_a @ kernel), room_b[some_b])
        step = np.abs(np.log(new / own_b)).max()
        own_b = new
        if step < 1e-3:
            break

    def everybody(
        side: torch.Tensor,
        sample: torch.Tensor,
        own: npt.NDArray[np.float64],
        weight: float,
        room: Floats,
    ) -> npt.NDArray[np.float64]:
        total = np.empty(len(side))
        potentials = torch.from_numpy(own)
        for start in range(0, len(side), 4096):
            score = (side[start : start + 4096] @ sample.T).double() - largest
            total[start : start + 4096] = weight * (score.exp_() @ potentials).numpy()
        return np.log(solved(total, np.asarray(room))) - math.log(scale)

    log_a = everybody(left, right[some_b], own_b, weight_b, room_a)
    log_b = everybody(right, left[some_a], own_a, weight_a, room_b)
    return log_a, log_b


def _bonus(log: npt.NDArray[np.float64], temperature: float) -> Vectors:
    return (2 * temperature * (log - log.mean())).astype(np.float32)

"""The fixed point behind `balance`: potentials of a market and the passes that fit them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq

from pairmatch.core.arrays import Floats, check_positive, check_vectors
from pairmatch.core.errors import ConfigurationError

Allowed = Callable[[int, int], npt.NDArray[np.bool_]]
Doubles = npt.NDArray[np.float64]
Potentials = tuple[Doubles, Doubles]

_SCORES_PER_BLOCK = 2**25
_SAMPLE_SIZE = 4096  # people per side that the initial potentials are estimated from
_ROWS_PER_BLOCK = 4096
_LARGEST_CAPACITY = 1e6
_LARGEST_EXPONENT = 170.0  # largest s / 2β: float32 holds exp(±85)


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Validated input.

    Attributes:
        left: [N, K] float32 a / 2β, so that left_i · right_j = s_ij / 2β.
        right: [M, K] float32 b.
        capacity_a: [N] float64.
        capacity_b: [M] float64.
        one_sided: Whether both sides are the same people, who never match themselves.
        allowed: Which pairs may match; None allows all.
        largest: Upper bound of s_ij / 2β.
        first: Number of the first row of `left` in the whole market, of which it is a part.
    """

    left: torch.Tensor
    right: torch.Tensor
    capacity_a: Doubles
    capacity_b: Doubles
    one_sided: bool
    allowed: Allowed | None
    largest: float
    first: int = 0

    def on(self, device: torch.device) -> Market:
        """The market with its vectors on a device."""
        left, right = self.left.to(device), self.right.to(device)
        return dataclasses.replace(self, left=left, right=right)

    def part(self, rows: slice) -> Market:
        """The market with some rows of side a only."""
        return dataclasses.replace(
            self, left=self.left[rows], capacity_a=self.capacity_a[rows], first=rows.start
        )

    @classmethod
    def of(
        cls,
        a: Floats,
        b: Floats | None,
        temperature: float,
        capacity_a: Floats | float,
        capacity_b: Floats | float | None,
        allowed: Allowed | None,
    ) -> Market:
        check_vectors("a", a)
        one_sided = b is None
        partners = a if b is None else b
        check_vectors("b", partners)
        if a.shape[1] != partners.shape[1]:
            raise ConfigurationError(
                f"`a` and `b` need the same width, got {a.shape[1]} and {partners.shape[1]}."
            )
        room_a = _capacities("capacity_a", capacity_a, len(a))
        if one_sided:
            room_b = room_a
        elif capacity_b is None:
            room_b = np.full(len(partners), room_a.sum() / len(partners))
        else:
            room_b = _capacities("capacity_b", capacity_b, len(partners))
        temperature = check_positive("balance(temperature=...)", temperature)
        left, right = (
            torch.from_numpy(np.require(side, np.float32, ["C", "W"])) for side in (a, partners)
        )
        largest = float(left.norm(dim=1).max() * right.norm(dim=1).max()) / (2 * temperature)
        if largest > _LARGEST_EXPONENT:
            lowest = temperature * largest / _LARGEST_EXPONENT
            raise ConfigurationError(
                f"`balance(temperature={temperature})` is too low for scores of this size: use at "
                f"least {lowest:.2g}."
            )
        return cls(left / (2 * temperature), right, room_a, room_b, one_sided, allowed, largest)


def _capacities(name: str, given: Floats | float, people: int) -> Doubles:
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ConfigurationError(f"`{name}` must be numbers, got {given!r}.") from None
    if array.ndim and array.shape != (people,):
        raise ConfigurationError(
            f"`{name}` must be one number or one per person, [{people}]; got {list(array.shape)}."
        )
    if not ((array >= 1 / _LARGEST_CAPACITY) & (array <= _LARGEST_CAPACITY)).all():  # NaN too
        raise ConfigurationError(
            f"`{name}` must be finite and above 0, from {1 / _LARGEST_CAPACITY:g} to "
            f"{_LARGEST_CAPACITY:g}."
        )
    return np.broadcast_to(array, (people,)).copy()


def block_of_scores(market: Market) -> torch.Tensor:
    """A buffer for the scores of as many rows as fit into 128 MiB: [rows, M] float32."""
    rows = max(1, min(len(market.left), _SCORES_PER_BLOCK // len(market.right)))
    return torch.empty(rows, len(market.right), device=market.right.device)


#: Fits the potentials of side a to those of side b in one pass over all pairs. Takes both [N], [M];
#: returns the new ones of side a, the matches of each person of side b at these [M], and the error
#: of side a before.
FitRows = Callable[[Doubles, Doubles], tuple[Doubles, Doubles, float]]


def fit_rows(
    market: Market, block: torch.Tensor, log_a: Doubles, log_b: Doubles
) -> tuple[Doubles, Doubles, float]:
    """Fits the potentials of side a, block by block, as `FitRows` says.

    Args:
        market: The market, or some rows of it.
        block: [rows, M] float32 buffer for the scores of a block.
        log_a: [N] log potentials of side a.
        log_b: [M] log potentials of side b.
    """
    error = 0.0
    device = block.device
    ones = torch.ones(len(market.right), device=device)
    fitted = np.empty(len(market.left))
    total_b = np.zeros(len(market.right))
    shift = torch.from_numpy(log_b.astype(np.float32)).to(device)
    for start in range(0, len(market.left), len(block)):
        rows = slice(start, min(start + len(block), len(market.left)))
        matches = _block_matches(market, log_a, shift, rows, block)
        total_a = (matches @ ones).double().cpu().numpy()
        before = log_a[rows]
        error = max(error, _relative_error(before, total_a, market.capacity_a[rows]))
        fitted[rows] = _updated(before, total_a, market.capacity_a[rows])
        # Side b is fitted to the new potentials of these rows, which saves a second pass.
        change = torch.from_numpy(np.exp(fitted[rows] - before).astype(np.float32))
        total_b += (change.to(device) @ matches).cpu().numpy()
    return fitted, total_b, error


def fit_once(
    market: Market, log_a: Doubles, log_b: Doubles, fit: FitRows
) -> tuple[Doubles, Doubles, float]:
    """Fits the potentials of both sides in one pass over all pairs.

    Returns:
        Log potentials of both sides, and the error before the update.
    """
    log_a, total_b, error = fit(log_a, log_b)
    error = max(error, _relative_error(log_b, total_b, market.capacity_b))
    return log_a, _updated(log_b, total_b, market.capacity_b), error


def _block_matches(
    market: Market, log_a: Doubles, shift: torch.Tensor, rows: slice, block: torch.Tensor
) -> torch.Tensor:
    """Expected matches μ of some rows at the current potentials, [n, M]; a view of `block`."""
    matches = block[: rows.stop - rows.start]
    torch.addmm(shift, market.left[rows], market.right.T, out=matches)
    matches += torch.from_numpy(log_a[rows].astype(np.float32)).to(block.device)[:, None]
    matches.exp_()  # μ is never far above a capacity, so float32 holds it
    if market.one_sided:
        diagonal = torch.arange(len(matches), device=block.device)
        matches[diagonal, diagonal + market.first + rows.start] = 0
    if market.allowed is not None:
        start, stop = market.first + rows.start, market.first + rows.stop
        mask = np.asarray(market.allowed(start, stop))
        if mask.dtype != bool or mask.shape != tuple(matches.shape):
            raise ConfigurationError(
                f"`balance(allowed=...)` must return bool {list(matches.shape)} for the rows "
                f"{start} to {stop}, got {mask.dtype} {list(mask.shape)}."
            )
        matches *= torch.from_numpy(np.ascontiguousarray(mask)).to(block.device)
    return matches


def _updated(log: Doubles, total: Doubles, capacity: Doubles) -> Doubles:
    """New log potentials: the root A of A² + A · (total / A_before) = capacity."""
    half = total / (2 * np.exp(log))
    return np.log(capacity) - np.log(np.sqrt(capacity + half**2) + half)


def _relative_error(log: Doubles, total: Doubles, capacity: Doubles) -> float:
    return float(np.abs((np.exp(2 * log) + total) / capacity - 1).max())


def fit_totals(market: Market, log_a: Doubles, log_b: Doubles) -> Potentials:
    """Shifts the potentials of each side by one number, so that both sides' totals are exact.

    Fitting alone corrects the totals slowly, by min(N, M) / max(N, M) per pass. `log_b` was fitted
    last, so the total of all matches is known; the remaining market of one person per side is
    solved exactly.
    """
    unmatched_a = float(np.exp(2 * log_a).sum())
    unmatched_b = float(np.exp(2 * log_b).sum())
    total_a = float(market.capacity_a.sum())
    total_b = float(market.capacity_b.sum())
    matched = total_b - unmatched_b
    if min(matched, unmatched_a, unmatched_b) <= 0:
        return log_a, log_b

    def shift_a(shift_b: float) -> float:
        return math.log1p(-unmatched_b * math.expm1(2 * shift_b) / matched) - shift_b

    def excess(shift_b: float) -> float:  # of side a; decreasing
        return (
            unmatched_a * math.exp(2 * shift_a(shift_b))
            + total_b
            - unmatched_b * math.exp(2 * shift_b)
            - total_a
        )

    low = -10.0
    high = min(10.0, math.log(total_b / unmatched_b) / 2 * (1 - 1e-9))
    if excess(low) <= 0 or excess(high) >= 0:
        return log_a, log_b
    shift_b = brentq(excess, low, high)
    return log_a + shift_a(shift_b), log_b + shift_b


def initial_potentials(market: Market, seed: int) -> Potentials:
    """Log potentials of both sides, estimated from a sample of each."""
    rng = np.random.default_rng(seed)
    rows_a, rows_b = (
        np.sort(rng.choice(len(side), min(_SAMPLE_SIZE, len(side)), replace=False))
        for side in (market.left, market.right)
    )
    weight_a = len(market.left) / len(rows_a)
    weight_b = len(market.right) / len(rows_b)
    sample_a = market.left[rows_a]
    sample_b = market.right[rows_b]
    # The kernel is stored divided by exp(largest), the potentials multiplied by exp(largest / 2).
    kernel = np.exp((sample_a @ sample_b.T).double().numpy() - market.largest)
    scale = math.exp(min(market.largest, _LARGEST_EXPONENT) / 2)
    potentials_a = np.ones(len(rows_a))
    potentials_b = np.ones(len(rows_b))
    for _ in range(50):
        total_a = weight_b * (kernel @ potentials_b)
        potentials_a = _scaled_root(total_a, market.capacity_a[rows_a], scale)
        total_b = weight_a * (potentials_a @ kernel)
        update = _scaled_root(total_b, market.capacity_b[rows_b], scale)
        step = np.abs(np.log(update / potentials_b)).max()
        potentials_b = update
        if step < 1e-3:
            break
    totals_a = weight_b * _sums(market.left, sample_b, potentials_b, market.largest)
    totals_b = weight_a * _sums(market.right, sample_a, potentials_a, market.largest)
    return (
        np.log(_scaled_root(totals_a, market.capacity_a, scale)) - math.log(scale),
        np.log(_scaled_root(totals_b, market.capacity_b, scale)) - math.log(scale),
    )


def _scaled_root(total: Doubles, capacity: Doubles, scale: float) -> Doubles:
    """`scale` times the root A of A² + A · total · scale = capacity."""
    half = total * scale / 2
    return scale * capacity / (np.sqrt(capacity + half**2) + half)


def _sums(side: torch.Tensor, sample: torch.Tensor, potentials: Doubles, largest: float) -> Doubles:
    """Kernel between all people of a side and a sample of the other side, times potentials: [N]."""
    weights = torch.from_numpy(potentials)
    sums = np.empty(len(side))
    for start in range(0, len(side), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        scores = (side[rows] @ sample.T).double() - largest
        sums[rows] = (scores.exp_() @ weights).numpy()
    return sums

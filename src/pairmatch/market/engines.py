"""Where the passes of `balance` run: in this process, or in those of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from pairmatch.core.devices import resolve_device
from pairmatch.market.potentials import FitRows, Market, block_of_scores, fit_rows


class BalanceEngine(Protocol):
    """Runs passes elsewhere than in this process."""

    def balancing(self, market: Market) -> AbstractContextManager[FitRows]:
        """Takes the market to other processes, for the block; yields what runs a pass there."""
        ...


class ThisProcess:
    """Runs passes in this process.

    Args:
        device: Device of the products: `auto`, `cpu`, `cuda`, … Its memory holds both sides.

    Raises:
        ConfigurationError: The device is unknown or unavailable.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = resolve_device(device)

    @contextmanager
    def balancing(self, market: Market) -> Iterator[FitRows]:
        """Yields what runs a pass."""
        placed = market.on(self._device)
        yield partial(fit_rows, placed, block_of_scores(placed))

"""Where the passes of `balance` run: in this process, or in those of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from pairmatch.market.potentials import FitRows, Market, block_of_scores, fit_rows


class BalanceEngine(Protocol):
    """Runs passes elsewhere than in this process."""

    def balancing(self, market: Market) -> AbstractContextManager[FitRows]:
        """Takes the market to other processes, for the block; yields what runs a pass there."""
        ...


class ThisProcess:
    """Runs passes in this process."""

    @contextmanager
    def balancing(self, market: Market) -> Iterator[FitRows]:
        """Yields what runs a pass."""
        yield partial(fit_rows, market, block_of_scores(market))

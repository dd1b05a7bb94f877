"""Limits of paid requests: a rate per minute, and a cost limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from pairmatch.core.types import Usage


class RateLimit:
    """Spaces requests evenly, so that no minute exceeds the limits of the account.

    Args:
        requests_per_minute: Maximum number of requests per minute; None for no limit.
        tokens_per_minute: Maximum number of tokens per minute; None for no limit.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next_by_requests = clock()
        self._next_by_tokens = self._next_by_requests

    def delay(self) -> float:
        """Seconds until the next request may start; 0 if it may start now."""
        return max(0.0, max(self._next_by_requests, self._next_by_tokens) - self._clock())

    def start(self, tokens: int) -> None:
        """Records the start of a request that is expected to use this number of tokens."""
        now = self._clock()
        self._next_by_requests = max(now, self._next_by_requests) + self._seconds_per_request
        self._next_by_tokens = max(now, self._next_by_tokens) + tokens * self._seconds_per_token

    def settle(self, expected: int, used: int) -> None:
        """Replaces the expected number of tokens of a request by the number that it used."""
        self._next_by_tokens += (used - expected) * self._seconds_per_token


class CostLimit:
    """Allows a request only if it and all running requests fit the limit at their highest cost.

    Args:
        max_usd: Limit in USD; None for no limit.
        worst_usd: Highest expected cost of a request, in USD; raised if a request costs more.
    """

    def __init__(self, max_usd: float | None, worst_usd: float) -> None:
        self._max_usd = max_usd
        self._worst_usd = worst_usd
        self._spent_usd = 0.0

    def allows(self, requests: int) -> bool:
        """Whether this number of unpaid requests, the next one included, fits the limit."""
        if self._max_usd is None:
            return True
        return self._spent_usd + requests * self._worst_usd <= self._max_usd

    def spend(self, usage: Usage) -> None:
        """Records the cost of a finished request."""
        cost = self._worst_usd if usage.usd is None else usage.usd
        self._spent_usd += cost
        self._worst_usd = max(self._worst_usd, cost)

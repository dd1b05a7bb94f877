"""How fast and how far paid requests may go: limits by the minute, and a cap on the cost."""

from __future__ import annotations

import time
from collections.abc import Callable

from pairmatch.core.types import Usage


class Pace:
    """Spaces requests so that no minute sees more of them, or more tokens, than the account allows.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._requests_free = self._tokens_free = clock()

    def pause(self) -> float:
        """Seconds until the next request may begin; 0 if it may now."""
        return max(0.0, max(self._requests_free, self._tokens_free) - self._clock())

    def begin(self, tokens: int) -> None:
        """Notes that a request begins, which takes about so many tokens."""
        now = self._clock()
        self._requests_free = max(now, self._requests_free) + self._per_request
        self._tokens_free = max(now, self._tokens_free) + tokens * self._per_token

    def settle(self, expected: int, used: int) -> None:
        """Corrects the number of tokens that `begin` was told, once it is known."""
        self._tokens_free += (used - expected) * self._per_token


class Cap:
    """Lets a photo begin only where the dearest outcome, of it and of all under way, stays within the cap.

    Args:
        max_usd: None for no cap.
        worst_usd: Most that one answer should cost; the dearest that was seen takes its place.
    """

    def __init__(self, max_usd: float | None, worst_usd: float) -> None:
        self._max_usd, self._worst_usd, self._spent_usd = max_usd, worst_usd, 0.0

    def allows(self, under_way: int) -> bool:
        """Whether so many answers, the next one included, are sure to be paid for."""
        return (
            self._max_usd is None or self._spent_usd + under_way * self._worst_usd <= self._max_usd
        )

    def spend(self, usage: Usage) -> None:
        """Notes what an answer cost."""
        cost = self._worst_usd if usage.usd is None else usage.usd
        self._spent_usd += cost
        self._worst_usd = max(self._worst_usd, cost)

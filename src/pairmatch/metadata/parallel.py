"""Runs requests in parallel, within a rate limit and a cost limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue

from pydantic import BaseModel

from pairmatch.core.interfaces import OnOutcome
from pairmatch.core.types import Profile, Refusal
from pairmatch.metadata.limits import CostLimit, RateLimit
from pairmatch.metadata.outcomes import Answer


class ParallelRequests:
    """Requests for a sequence of profiles; outcomes arrive in any order.

    Args:
        profiles: Profiles to request, one request each.
        request: Function that makes one request; called in worker threads.
        on_outcome: Called in the calling thread with index, outcome and cost of each answer. If it
            returns True, no further request is started.
        concurrency: Maximum number of running requests.
        rate: Limit of requests and tokens per minute.
        cost: Cost limit.
        expected_tokens: Expected number of tokens per request, for `rate`.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        request: Callable[[Profile], Answer],
        on_outcome: OnOutcome | None = None,
        *,
        concurrency: int,
        rate: RateLimit,
        cost: CostLimit,
        expected_tokens: int,
    ) -> None:
        self._profiles = profiles
        self._request = request
        self._on_outcome = on_outcome
        self._concurrency = concurrency
        self._rate = rate
        self._cost = cost
        self._expected_tokens = expected_tokens
        self._waiting = deque(range(len(profiles)))
        self._running: dict[Future[Answer], int] = {}
        self._finished: SimpleQueue[Future[Answer]] = SimpleQueue()
        self._outcomes: list[BaseModel | Refusal] = [
            Refusal("stopped", "not submitted: the cost limit was reached")
        ] * len(profiles)

    def run(self) -> list[BaseModel | Refusal]:
        """Runs the requests and returns one outcome per profile, in order.

        An exception of a request cancels those that have not started. Those that are running are
        paid for, so their outcomes are still passed to `on_outcome` before the exception is raised.
        """
        with ThreadPoolExecutor(self._concurrency, "pairmatch-metadata") as pool:
            try:
                while True:
                    delay = self._start(pool)
                    if not self._running and not delay:
                        return self._outcomes
                    self._receive(timeout=delay or None)
            except BaseException:
                self._drain()
                raise

    def _start(self, pool: Executor) -> float:
        """Starts as many requests as the limits allow; returns the delay that the rate imposes."""
        while (
            self._waiting
            and len(self._running) < self._concurrency
            and self._cost.allows(len(self._running) + 1)
        ):
            delay = self._rate.delay()
            if delay:
                return delay
            self._rate.start(self._expected_tokens)
            index = self._waiting.popleft()
            future = pool.submit(self._request, self._profiles[index])
            self._running[future] = index
            future.add_done_callback(self._finished.put)
        return 0.0

    def _receive(self, timeout: float | None) -> None:
        """Waits for the next answer, at most until the timeout."""
        try:
            future = self._finished.get(timeout=timeout)
        except Empty:
            return
        index = self._running.pop(future)
        outcome, usage = future.result()
        self._outcomes[index] = outcome
        self._cost.spend(usage)
        self._rate.settle(self._expected_tokens, usage.input_tokens + usage.output_tokens)
        if self._on_outcome is not None and self._on_outcome(index, outcome, usage):
            self._waiting.clear()

    def _drain(self) -> None:
        """Cancels what has not started, and passes on the outcomes of what is running."""
        for future in self._running:
            future.cancel()
        for future, index in self._running.items():
            if (
                not future.cancelled()
                and future.exception() is None
                and self._on_outcome is not None
            ):
                self._on_outcome(index, *future.result())

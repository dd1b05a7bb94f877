"""Runs requests in parallel, within a rate limit and a cost limit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from pydantic import BaseModel

from pairmatch.core.interfaces import OnOutcome
from pairmatch.core.types import Profile, Refusal
from pairmatch.metadata.limits import CostLimit, RateLimit
from pairmatch.metadata.outcomes import Answer

_STEP_SECONDS = 1.0  # a wait without an end cannot be interrupted on every system
_GRACE_SECONDS = 3.0  # for running requests, after an interruption


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
        close: Called at the end of each worker thread.
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
        close: Callable[[], None] | None = None,
    ) -> None:
        self._profiles = profiles
        self._request = request
        self._on_outcome = on_outcome
        self._concurrency = concurrency
        self._rate = rate
        self._cost = cost
        self._expected_tokens = expected_tokens
        self._close = close
        self._waiting = deque(range(len(profiles)))
        self._running: set[int] = set()
        self._tasks: SimpleQueue[int | None] = SimpleQueue()
        self._finished: SimpleQueue[tuple[int, Answer | BaseException]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._outcomes: list[BaseModel | Refusal] = [
            Refusal("stopped", "not submitted: the cost limit was reached")
        ] * len(profiles)

    def run(self) -> list[BaseModel | Refusal]:
        """Runs the requests and returns one outcome per profile, in order.

        After an exception of a request no further one is started. Those that are running are paid
        for, so their outcomes are still passed to `on_outcome` before the exception is raised.
        After an interruption (Ctrl-C), they have a few seconds for that.
        """
        try:
            while True:
                delay = self._start()
                if not self._running and not delay:
                    return self._outcomes
                self._receive(min(delay or _STEP_SECONDS, _STEP_SECONDS))
        except Exception:
            self._drain(None)
            raise
        except BaseException:
            self._drain(_GRACE_SECONDS)
            raise
        finally:
            for _ in self._threads:
                self._tasks.put(None)
            if not self._running:
                for thread in self._threads:
                    thread.join()

    def _start(self) -> float:
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
            self._running.add(index)
            if len(self._threads) < len(self._running):
                # Daemons: the process does not wait for them when it ends
                thread = threading.Thread(target=self._work, name="pairmatch-metadata", daemon=True)
                thread.start()
                self._threads.append(thread)
            self._tasks.put(index)
        return 0.0

    def _work(self) -> None:
        """Makes requests until there are none, in a thread."""
        while (index := self._tasks.get()) is not None:
            try:
                self._finished.put((index, self._request(self._profiles[index])))
            except BaseException as error:
                self._finished.put((index, error))
        if self._close is not None:
            self._close()

    def _receive(self, timeout: float) -> None:
        """Waits for the next answer, at most until the timeout."""
        try:
            index, answer = self._finished.get(timeout=timeout)
        except Empty:
            return
        self._running.remove(index)
        if isinstance(answer, BaseException):
            raise answer
        outcome, usage = answer
        self._outcomes[index] = outcome
        self._cost.spend(usage)
        self._rate.settle(self._expected_tokens, usage.input_tokens + usage.output_tokens)
        if self._on_outcome is not None and self._on_outcome(index, outcome, usage):
            self._waiting.clear()

    def _drain(self, seconds: float | None) -> None:
        """Passes on the outcomes of running requests, for some seconds or until all have ended."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._running and (end is None or time.monotonic() < end):
            try:
                index, answer = self._finished.get(timeout=0.1 if end else _STEP_SECONDS)
            except Empty:
                continue
            self._running.remove(index)
            if not isinstance(answer, BaseException) and self._on_outcome is not None:
                self._on_outcome(index, *answer)

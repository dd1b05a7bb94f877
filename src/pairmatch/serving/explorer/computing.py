"""Results that take seconds: computed in the background, and kept for some minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotReady
from threading import Lock
from typing import Any, TypeVar

_Result = TypeVar("_Result")
KEPT_SECONDS = 600.0
_WAIT_SECONDS = 1.0


class ComputingError(Exception):
    """A result is still being computed."""


class Computed:
    """Computes one result at a time, and keeps each for ten minutes.

    Galleries of a service change all the time, so results are renewed by age and not by change:
    pages that show one say how old it is, and leave out people who are gone.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "pairmatch-explorer")
        self._results: dict[Hashable, tuple[float, Future[Any]]] = {}
        self._lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], _Result]) -> tuple[_Result, float]:
        """The result for a key, and its age in seconds.

        Raises:
            ComputingError: It is not there within a second: ask again.
            PairmatchError: It cannot be computed.
        """
        now = time.monotonic()
        with self._lock:
            started, future = self._results.get(key, (now, None))
            if future is None or (future.done() and now - started > KEPT_SECONDS):
                started, future = now, self._threads.submit(compute)
                self._results[key] = started, future
        try:
            return future.result(_WAIT_SECONDS), time.monotonic() - started
        except NotReady:
            raise ComputingError from None

    def close(self) -> None:
        """Ends the thread after what it computes."""
        self._threads.shutdown(wait=False, cancel_futures=True)

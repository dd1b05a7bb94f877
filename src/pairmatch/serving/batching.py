"""Jobs of many requests that are done together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Batcher(Generic[Job, Result]):
    """Does waiting jobs together in a thread: those that came while the last batch was done.

    A job waits for no others: an idle batcher does it at once. If a batch fails, its jobs are done
    one by one, so that none fails because of another.

    Args:
        run: Does jobs; returns one result per job.
        key: Jobs are done together only if their keys are equal.
        most: Largest number of jobs in a batch.
        name: Name of the thread.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        *,
        key: Callable[[Job], Hashable] = lambda job: None,
        most: int = 32,
        name: str = "pairmatch-batch",
    ) -> None:
        self._run = run
        self._key = key
        self._most = most
        self._jobs: deque[tuple[Job, Future[Result]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Job) -> Result:
        """Does a job, and returns its result or raises its error."""
        future: Future[Result] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("This batcher is closed.")
            self._jobs.append((job, future))
            self._changed.notify()
        return future.result()

    def close(self) -> None:
        """Does the jobs that wait, and ends the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            self._finish(batch)

    def _next(self) -> list[tuple[Job, Future[Result]]]:
        """The oldest job and those that go with it; none once the batcher is closed."""
        with self._changed:
            while not self._jobs:
                if self._is_closed:
                    return []
                self._changed.wait()
            key = self._key(self._jobs[0][0])
            batch: list[tuple[Job, Future[Result]]] = []
            others: deque[tuple[Job, Future[Result]]] = deque()
            for entry in self._jobs:
                fits = len(batch) < self._most and self._key(entry[0]) == key
                (batch if fits else others).append(entry)
            self._jobs = others
        return batch

    def _finish(self, batch: Sequence[tuple[Job, Future[Result]]]) -> None:
        try:
            results = self._run([job for job, _ in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for entry in batch:
                self._finish([entry])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)

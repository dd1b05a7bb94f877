"""Runs a backbone over distinct inputs: batching, prefetching, and out-of-memory recovery."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import ProgressColumn, Task
from rich.text import Text

from pairmatch.core.errors import (
    BackboneError,
    DataError,
    ImageError,
    StoreError,
)
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.progress import progress_bar
from pairmatch.core.types import Item
from pairmatch.features.engines import ExtractionEngine, is_out_of_memory, pooled_vectors
from pairmatch.io.photo_notices import grouped_notices
from pairmatch.io.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """One distinct input.

    Attributes:
        item: What the backbone reads.
        keys: Store keys of its features, one per pooler.
        people: Ids of the people with this input.
        length: Number of tokens that the backbone estimates for it.
    """

    item: Item
    keys: tuple[str, ...]
    people: tuple[str, ...]
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class BackboneRunner:
    """Runs one backbone with some poolers and commits features to the store batch by batch.

    Attributes:
        store: Receives the features.
        backbone: The frozen model.
        poolers: At least one; all read the same forward pass.
        dtype: Number format of the stored vectors, `float16` or `float32`.
        progress: Whether to show a progress bar.
        engine: Where the backbone runs; None for this process.
    """

    store: Store
    backbone: Backbone
    poolers: tuple[Pooler, ...]
    dtype: str
    progress: bool
    engine: ExtractionEngine | None = None

    @property
    def name(self) -> str:
        """Class name of the backbone, for messages."""
        return type(self.backbone).__name__

    @grouped_notices()
    def run(self, jobs: Sequence[Job], total: int) -> None:
        """Runs all jobs, longest first.

        Args:
            jobs: Inputs whose features are not stored.
            total: Number of distinct inputs, stored ones included, for progress and messages.

        Raises:
            DataError: Photos that cannot be decoded, after all other jobs are done.
            BackboneError: A single input exceeds the memory, or the output is invalid.
        """
        problems: list[str] = []
        truncated = self.backbone.truncated
        budget = max(1, self.backbone.max_batch_length)
        waiting = sorted(jobs, key=lambda job: -job.length)
        workers = self.backbone.workers or worker_count()
        with (
            progress_bar(self.progress, _PeoplePerSecond()) as bar,
            ThreadPoolExecutor(workers, "pairmatch-prepare") as pool,
        ):
            task = bar.add_task(
                f"Extracting features with {self.name}", total=total, completed=total - len(jobs)
            )
            if self.engine is not None:
                self._run_on_engine(
                    self.engine,
                    list(_batches(waiting, budget)),
                    problems,
                    lambda count: bar.advance(task, count),
                )
                waiting = []
            while waiting:
                batches = list(_batches(waiting, budget))
                prepared = _prefetch(pool, self.backbone, batches, workers + 1)
                finished = self._run_batches(
                    prepared, problems, lambda count: bar.advance(task, count)
                )
                waiting = [job for batch in batches[finished:] for job in batch]
                if waiting:
                    failed = batches[finished]
                    budget = max(1, min(budget, failed[0].length * len(failed)) // 2)
                    # Only here, where no exception refers to the tensors of the failed pass
                    _empty_cache()
        if self.backbone.truncated > truncated:
            _log.warning(
                "%d people have texts longer than %s reads; the excess is cut off.",
                self.backbone.truncated - truncated,
                self.name,
            )
        if problems:
            raise DataError(
                f"Features of {len(problems)} of {total} people cannot be extracted "
                "(all others are in the store):",
                problems,
            )

    def read(self, keys: Sequence[str]) -> npt.NDArray[np.float32]:
        """[N, D] float32 features of N keys, which were all extracted or in the store.

        Raises:
            StoreError: Some are damaged; they are removed, so that the next run extracts them.
        """
        distinct = sorted(set(keys))
        vectors = self.store.features(distinct)
        widths = Counter(len(vector) for vector in vectors.values())
        width = widths.most_common(1)[0][0] if widths else 0
        damaged = [key for key in distinct if key not in vectors or len(vectors[key]) != width]
        if damaged:
            self.store.drop_features(damaged)
            raise StoreError(
                f"{len(damaged)} of {len(distinct)} features in the store {self.store.path} were "
                "damaged or erased; what was left of them is removed. Run again: they are then "
                "extracted again."
            )
        return np.stack([vectors[key] for key in keys]).astype(np.float32)

    def _run_batches(
        self,
        batches: Iterable[tuple[list[Job], Future[Any]]],
        problems: list[str],
        advance: Callable[[int], None],
    ) -> int:
        """Runs batches until one runs out of memory; returns the number of finished batches."""
        finished = 0
        for batch, prepared in batches:
            try:
                self._run_batch(batch, prepared, problems)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise BackboneError(
                        f"{self.name} ran out of memory on a single person (length "
                        f"{batch[0].length}): reduce its image size, or choose a smaller model "
                        "or another device."
                    ) from error
                break
            finished += 1
            advance(len(batch))
        return finished

    def _run_batch(self, batch: Sequence[Job], prepared: Future[Any], problems: list[str]) -> None:
        """Extracts and commits one batch.

        If a photo cannot be decoded, the rest of the batch is run one by one.
        """
        if self._is_stored(batch):
            return
        try:
            self._commit(batch, self._pool(batch, prepared.result()))
        except ImageError as error:
            if len(batch) == 1:
                problems.append(f"{', '.join(batch[0].people)}: {error}")
                return
            for job in batch:
                try:
                    self._commit([job], self._pool([job], self.backbone.prepare([job.item])))
                except ImageError as job_error:
                    problems.append(f"{', '.join(job.people)}: {job_error}")

    def _is_stored(self, batch: Sequence[Job]) -> bool:
        """Whether another process has stored this batch in the meantime."""
        keys = [key for job in batch for key in job.keys]
        if len(self.store.has_features(keys)) < len(keys):
            return False
        self._link(batch)
        return True

    def _pool(self, batch: Sequence[Job], prepared: Any) -> list[npt.NDArray[np.floating]]:
        """Runs the model; one [B, D] array of `dtype` per pooler."""
        names = [job.people[0] for job in batch]
        return pooled_vectors(self.backbone, self.poolers, self.dtype, prepared, names)

    def _run_on_engine(
        self,
        engine: ExtractionEngine,
        batches: Sequence[list[Job]],
        problems: list[str],
        advance: Callable[[int], None],
    ) -> None:
        """Runs batches on other processes, and commits each as its vectors arrive."""
        items = [[job.item for job in batch] for batch in batches]
        for number, result in engine.extract(self.backbone, self.poolers, self.dtype, items):
            batch = batches[number]
            read = [job for row, job in enumerate(batch) if row not in result.problems]
            if read:
                self._commit(read, result.vectors)
            problems += [
                f"{', '.join(batch[row].people)}: {problem}"
                for row, problem in sorted(result.problems.items())
            ]
            self.backbone.truncated += result.truncated
            advance(len(batch))

    def _commit(self, batch: Sequence[Job], pooled: Sequence[npt.NDArray[np.floating]]) -> None:
        # People first: even after a kill, no feature may exist that `forget` cannot reach
        self._link(batch)
        self.store.put_features(
            {
                key: vectors[row]
                for row, job in enumerate(batch)
                for key, vectors in zip(job.keys, pooled, strict=True)
            }
        )

    def _link(self, batch: Sequence[Job]) -> None:
        self.store.link((person, key) for job in batch for person in job.people for key in job.keys)


def worker_count() -> int:
    """Default number of worker threads: one per CPU, at most 8."""
    return max(1, min(8, os.cpu_count() or 1))


def _batches(jobs: Iterable[Job], budget: int) -> Iterator[list[Job]]:
    """Batches of jobs, longest first, whose padded length (longest × number) fits the budget."""
    batch: list[Job] = []
    for job in jobs:
        if batch and max(1, batch[0].length) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _prefetch(
    pool: ThreadPoolExecutor, backbone: Backbone, batches: Sequence[list[Job]], depth: int
) -> Iterator[tuple[list[Job], Future[Any]]]:
    """Batches in order, with up to `depth` of them prepared ahead."""
    queue: deque[Future[Any]] = deque()
    submitted = 0
    if batches:
        # The first batch is prepared in this thread, so that lazy loading happens once, before
        # threads share the backbone
        first: Future[Any] = Future()
        try:
            first.set_result(backbone.prepare([job.item for job in batches[0]]))
        except Exception as error:
            first.set_exception(error)
        queue.append(first)
        submitted = 1
    try:
        for batch in batches:
            while submitted < len(batches) and len(queue) < depth:
                items = [job.item for job in batches[submitted]]
                queue.append(pool.submit(backbone.prepare, items))
                submitted += 1
            yield batch, queue.popleft()
    finally:
        for future in queue:
            future.cancel()


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _PeoplePerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} people/s", style="progress.data.speed")

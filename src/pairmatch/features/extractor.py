"""Runs frozen backbones over people, each input once ever, and keeps the features in the store."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pairmatch.core.arrays import Floats, unit_rows
from pairmatch.core.errors import (
    BackboneError,
    ConfigurationError,
    DataError,
    ImageError,
    PairmatchError,
)
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.types import Item, Profile
from pairmatch.features.prompt import render
from pairmatch.io.images import image_digest
from pairmatch.io.store import Store, content_key

_log = logging.getLogger(__name__)
_KEY_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """One distinct input.

    What the backbone reads, the keys of its features and the people it stands for.
    """

    item: Item
    keys: tuple[str, ...]
    people: tuple[str, ...]
    length: int


class FeatureStore:
    """Features of people by backbone and pooler, computed once and found by content ever after.

    A feature's key digests the photos' bytes, the rendered prompt and the fingerprints of backbone
    and pooler: what changes any of them changes the key. Every batch is committed as it is done, so
    a run that was killed goes on where it stopped.

    Args:
        store: The store, or its path; by default the user's own.
        dtype: Of the vectors in the store, `float32` or `float16` (half the space; cosines differ
            by about 1e-4).
        progress: Shows a progress bar.
    """

    def __init__(
        self,
        store: Store | str | Path | None = None,
        *,
        dtype: str = "float32",
        progress: bool = False,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigurationError(
                f"`FeatureStore(dtype=...)` is 'float32' or 'float16', got {dtype!r}."
            )
        self.store = store if isinstance(store, Store) else Store(store)
        self.dtype, self.progress = dtype, progress

    def embed(
        self,
        profiles: Sequence[Profile],
        backbone: Backbone,
        poolers: Sequence[Pooler],
        *,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
    ) -> list[npt.NDArray[np.float32]]:
        """Features of people, one array per pooler, all from one pass of the backbone.

        Args:
            profiles: N people.
            backbone: Run on what is not in the store yet.
            poolers: At least one.
            prompt: Template of the text that the backbone reads; None for the package's own.
            prompt_attributes: Names of the profile attributes that go into the prompt.

        Returns:
            One [N, D] float32 per pooler, rows in the order of `profiles`.

        Raises:
            DataError: People with nothing to read or whose files are missing, before anything is
                run; people whose photos cannot be decoded, after everybody else's features are in
                the store. All of them at once.
            BackboneError: The backbone cannot run, or gives values that are not finite.
            ConfigurationError: Nobody, or no pooler.
        """
        if not profiles or not poolers:
            raise ConfigurationError("`embed` needs at least one person and one pooler.")
        inputs, keys = self._keyed(profiles, backbone, poolers, prompt, prompt_attributes)

        people: dict[tuple[str, ...], list[str]] = {}
        items: dict[tuple[str, ...], Item] = {}
        for profile, (item, _), own in zip(profiles, inputs, keys, strict=True):
            people.setdefault(own, []).append(profile.id)
            items.setdefault(own, item)
        have = self.store.has_features([key for own in people for key in own])
        self.store.link(
            (person, key)
            for own, names in people.items()
            for person in names
            for key in own
            if key in have
        )
        jobs = [
            _Job(items[own], own, tuple(names), backbone.length(items[own]))
            for own, names in people.items()
            if not have.issuperset(own)
        ]
        if jobs:
            self._run(jobs, backbone, poolers, len(people))
        return [self._read([own[index] for own in keys]) for index in range(len(poolers))]

    def missing(
        self,
        profiles: Sequence[Profile],
        backbone: Backbone,
        poolers: Sequence[Pooler],
        *,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
    ) -> list[Profile]:
        """Those whom `embed` would run the backbone on, one for each distinct input.

        Runs nothing.
        """
        _, keys = self._keyed(profiles, backbone, poolers, prompt, prompt_attributes)
        have = self.store.has_features([key for own in keys for key in own])
        first = {
            own: profile for profile, own in zip(reversed(profiles), reversed(keys), strict=True)
        }
        return [first[own] for own in dict.fromkeys(keys) if not have.issuperset(own)]

    def _keyed(
        self,
        profiles: Sequence[Profile],
        backbone: Backbone,
        poolers: Sequence[Pooler],
        prompt: str | None,
        prompt_attributes: Sequence[str],
    ) -> tuple[list[tuple[Item, str]], list[tuple[str, ...]]]:
        """What the backbone reads for each person, and the keys of its features, one per pooler."""
        inputs = self._inputs(profiles, backbone, prompt, prompt_attributes)
        shared = {
            "format": _KEY_FORMAT,
            "backbone": dict(backbone.fingerprint()),
            "dtype": self.dtype,
        }
        bases = [
            content_key({**shared, "pooler": dict(pooler.fingerprint())}) for pooler in poolers
        ]
        return inputs, [
            tuple(content_key({"of": base, "input": digest}) for base in bases)
            for _, digest in inputs
        ]

    def _inputs(
        self,
        profiles: Sequence[Profile],
        backbone: Backbone,
        prompt: str | None,
        attributes: Sequence[str],
    ) -> list[tuple[Item, str]]:
        """What the backbone reads for each person, with its digest."""
        items = [
            Item(
                profile.images if backbone.reads_images else (),
                render(profile, template=prompt, attributes=attributes)
                if backbone.reads_text
                else "",
            )
            for profile in profiles
        ]
        problems = [
            f"{profile.id}: has nothing that {type(backbone).__name__} reads "
            f"({' or '.join(['photos'] * backbone.reads_images + ['text'] * backbone.reads_text)})"
            for profile, item in zip(profiles, items, strict=True)
            if not item.images and not item.text
        ]
        with ThreadPoolExecutor(_cpus()) as pool:
            digests = list(pool.map(_digest, items))
        problems += [
            f"{profile.id}: {digest}"
            for profile, digest in zip(profiles, digests, strict=True)
            if isinstance(digest, ImageError)
        ]
        if problems:
            raise DataError(
                f"{len(problems)} of {len(profiles)} people cannot be embedded:", problems
            )
        return [(item, str(digest)) for item, digest in zip(items, digests, strict=True)]

    def _run(
        self, jobs: list[_Job], backbone: Backbone, poolers: Sequence[Pooler], total: int
    ) -> None:
        """Runs the backbone over all jobs, longest first, committing batch by batch."""
        budget = max(1, backbone.max_batch_length)
        problems: list[str] = []
        truncated = backbone.truncated
        waiting = sorted(jobs, key=lambda job: -job.length)
        workers = backbone.workers or _cpus()
        with (
            _progress_bar(self.progress) as bar,
            ThreadPoolExecutor(workers, "pairmatch-prepare") as pool,
        ):
            task = bar.add_task(
                f"Embedding with {_name(backbone)}", total=total, completed=total - len(jobs)
            )
            while waiting:
                batches = list(_batches(waiting, budget))
                waiting = []
                for index, (batch, prepared) in enumerate(
                    _ahead(pool, backbone, batches, workers + 1)
                ):
                    try:
                        self._batch(batch, prepared, backbone, poolers, problems)
                    except (RuntimeError, MemoryError) as error:
                        if not _is_out_of_memory(error):
                            raise
                        longest = batch[0].length
                        if len(batch) == 1:
                            raise BackboneError(
                                f"{_name(backbone)} ran out of memory on a single person (length {longest}): lower its "
                                "image size, or choose a smaller model or another device."
                            ) from error
                        budget = max(1, min(budget, longest * len(batch)) // 2)
                        waiting = [job for rest in batches[index:] for job in rest]
                    if waiting:
                        _empty_cache()  # out here, where the error no longer holds the tensors of the failed pass
                        break
                    bar.advance(task, len(batch))
        if backbone.truncated > truncated:
            count = backbone.truncated - truncated
            _log.warning(
                "The texts of %d people are longer than %s reads: the rest is cut.",
                count,
                _name(backbone),
            )
        if problems:
            raise DataError(
                f"{len(problems)} of {total} people cannot be embedded (everybody else is in the store):",
                problems,
            )

    def _batch(
        self,
        batch: Sequence[_Job],
        prepared: Future[Any],
        backbone: Backbone,
        poolers: Sequence[Pooler],
        problems: list[str],
    ) -> None:
        """Embeds a batch and commits it.

        A photo that cannot be read is noted and everybody else goes on.
        """
        if self._done_elsewhere(batch):
            return
        try:
            self._commit(batch, self._pooled(batch, prepared.result(), backbone, poolers))
        except ImageError as error:
            if len(batch) == 1:
                problems.append(f"{', '.join(batch[0].people)}: {error}")
                return
            for job in batch:
                try:
                    self._commit(
                        [job], self._pooled([job], backbone.prepare([job.item]), backbone, poolers)
                    )
                except ImageError as one_error:
                    problems.append(f"{', '.join(job.people)}: {one_error}")

    def _done_elsewhere(self, batch: Sequence[_Job]) -> bool:
        """Whether another process has embedded this batch meanwhile."""
        keys = [key for job in batch for key in job.keys]
        if len(self.store.has_features(keys)) < len(keys):
            return False
        self.store.link((person, key) for job in batch for person in job.people for key in job.keys)
        return True

    def _pooled(
        self, batch: Sequence[_Job], prepared: Any, backbone: Backbone, poolers: Sequence[Pooler]
    ) -> list[npt.NDArray[np.floating]]:
        with torch.inference_mode():
            states = backbone.forward(prepared)
            pooled = [pooler.pool(states).float().cpu().numpy() for pooler in poolers]
        stored = [vectors.astype(self.dtype) for vectors in pooled]
        for vectors in stored:
            if vectors.ndim != 2 or len(vectors) != len(batch):
                raise BackboneError(
                    f"{_name(backbone)} gave vectors of shape {list(vectors.shape)} for {len(batch)} people."
                )
            wrong = [
                job.people[0]
                for job, row in zip(batch, vectors, strict=True)
                if not np.isfinite(row).all()
            ]
            if wrong:
                raise BackboneError(
                    f"{_name(backbone)} gave values that are not finite in {self.dtype} for {', '.join(wrong[:5])}"
                    f"{' and others' if len(wrong) > 5 else ''}: try dtype='float32'."
                )
        return stored

    def _commit(self, batch: Sequence[_Job], pooled: Sequence[npt.NDArray[np.floating]]) -> None:
        # People first: a feature that nobody could ask to forget must never be there, not even
        # after a kill
        self.store.link((person, key) for job in batch for person in job.people for key in job.keys)
        self.store.put_features(
            {
                key: vectors[row]
                for row, job in enumerate(batch)
                for key, vectors in zip(job.keys, pooled, strict=True)
            }
        )

    def _read(self, keys: Sequence[str]) -> npt.NDArray[np.float32]:
        found = self.store.features(sorted(set(keys)))
        return np.stack([found[key] for key in keys]).astype(np.float32)


def join(
    features: Sequence[Floats], weights: Sequence[float] | None = None
) -> npt.NDArray[np.float32]:
    """Joins the features of several backbones: each scaled to unit length, times its weight, side by side.

    One array alone is returned as it is, so that a single backbone's features reach the head
    unscaled.

    Args:
        features: Arrays [N, D_i] of the same people.
        weights: One per array, above 0; by default all 1.

    Returns:
        [N, Σ D_i] float32.
    """
    if weights is not None and (len(weights) != len(features) or min(weights) <= 0):
        raise ConfigurationError(
            f"`weights` needs one positive number per backbone ({len(features)}), got {weights}."
        )
    if len(features) == 1:
        return np.asarray(features[0], np.float32)
    return np.concatenate(
        [unit_rows(h) * w for h, w in zip(features, weights or [1.0] * len(features), strict=True)],
        1,
    )


def _digest(item: Item) -> str | ImageError:
    try:
        return content_key(
            {"images": [image_digest(image) for image in item.images], "text": item.text}
        )
    except ImageError as error:
        return error


def _batches(jobs: Iterable[_Job], budget: int) -> Iterator[list[_Job]]:
    """Groups of jobs, longest first, whose padded length (longest × number) stays within the budget."""
    batch: list[_Job] = []
    for job in jobs:
        if batch and max(1, batch[0].length) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _ahead(
    pool: ThreadPoolExecutor, backbone: Backbone, batches: Sequence[list[_Job]], depth: int
) -> Iterator[tuple[list[_Job], Future[Any]]]:
    """Batches in order, with up to `depth` of them being prepared ahead."""
    queue: deque[Future[Any]] = deque()
    submitted = 0
    if batches:
        # Here and not in a worker: what a backbone loads at its first use is loaded once, before
        # threads share it
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
                queue.append(
                    pool.submit(backbone.prepare, [job.item for job in batches[submitted]])
                )
                submitted += 1
            yield batch, queue.popleft()
    finally:
        for future in queue:
            future.cancel()


def _name(backbone: Backbone) -> str:
    return type(backbone).__name__


def _cpus() -> int:
    return max(1, min(8, os.cpu_count() or 1))


def _is_out_of_memory(error: Exception) -> bool:
    """Accelerators have a class for it.

    Torch on the CPU raises a RuntimeError, numpy and Pillow a MemoryError.
    """
    if isinstance(error, PairmatchError):
        return False
    text = str(error)
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in text or "out of memory" in text


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _PeoplePerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} people/s", style="progress.data.speed")


def _progress_bar(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _PeoplePerSecond(),
        TimeRemainingColumn(),
        disable=not shown,
    )

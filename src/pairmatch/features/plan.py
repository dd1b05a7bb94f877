"""The plan of a feature extraction: what would run, how much of it, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Item, Profile
from pairmatch.features.running import BackboneRunner, Job


@dataclass(frozen=True, slots=True, eq=False)
class ExtractionPlan:
    """Feature extraction for some people with one backbone, before it runs.

    Created by [`FeatureStore.plan`][pairmatch.features.extractor.FeatureStore.plan] or
    [`plan_extractions`][pairmatch.features.extractor.plan_extractions]. `print` summarizes it.

    Attributes:
        profiles: The people, in the order of the feature rows.
        keys: Store keys of each person's features, one per pooler. People with the same input
            share keys.
        seconds: Estimated time for `missing`, in seconds; None before `measure`.
    """

    profiles: tuple[Profile, ...]
    keys: tuple[tuple[str, ...], ...]
    seconds: float | None = field(default=None, kw_only=True)
    _items: tuple[Item, ...] = field(kw_only=True, repr=False)
    _missing: tuple[int, ...] = field(kw_only=True, repr=False)
    _runner: BackboneRunner = field(kw_only=True, repr=False)

    @property
    def people(self) -> int:
        """Number of people."""
        return len(self.profiles)

    @property
    def inputs(self) -> int:
        """Number of distinct inputs."""
        return len(set(self.keys))

    @property
    def stored(self) -> int:
        """Number of distinct inputs whose features were in the store when the plan was made."""
        return self.inputs - len(self._missing)

    @property
    def missing(self) -> tuple[Profile, ...]:
        """The people the backbone would run on: the first of each distinct input not stored."""
        return tuple(self.profiles[row] for row in self._missing)

    def run(self) -> list[npt.NDArray[np.float32]]:
        """Extracts the missing features and reads all of them.

        Checks the store again first: another process may have filled it since the plan was made.

        Returns:
            One [N, D] float32 array per pooler, rows in the order of `profiles`.

        Raises:
            DataError: Photos that cannot be decoded, all at once, after all other features are
                in the store.
            BackboneError: The backbone cannot run, or returns values that are not finite.
        """
        self._extract(range(self.people), self._runner)
        poolers = range(len(self._runner.poolers))
        return [self._runner.read([keys[index] for keys in self.keys]) for index in poolers]

    def measure(self, sample: int = 4) -> ExtractionPlan:
        """Estimates the time by running the backbone on a few missing inputs.

        One input loads the model; `sample` further ones are timed, in this process even if an
        engine runs the rest. Their features are kept in the store.

        Args:
            sample: Number of inputs to time, at least 1.

        Returns:
            The plan of what remains, with `seconds` set.

        Raises:
            DataError: A sampled photo cannot be decoded.
            BackboneError: The backbone cannot run, or returns values that are not finite.
            ConfigurationError: `sample` is below 1.
        """
        if sample < 1:
            raise ConfigurationError(
                f"`ExtractionPlan.measure(sample=...)` must be at least 1, got {sample}."
            )
        silent = replace(self._runner, progress=False, engine=None)
        sampled = {self.keys[row] for row in self._missing[: 1 + sample]}
        others = [row for row, keys in enumerate(self.keys) if keys in sampled]
        timed = self._missing[1 : 1 + sample]
        remaining = self._missing[1 + sample :]
        self._extract(self._missing[:1], silent)
        start = time.perf_counter()
        self._extract(timed, silent)
        elapsed = time.perf_counter() - start
        self._extract(others, silent)  # links all people with these inputs, so `forget` finds them
        seconds = elapsed / len(timed) * len(remaining) if remaining else 0.0
        return replace(self, seconds=seconds, _missing=remaining)

    def __str__(self) -> str:
        duration = "" if self.seconds is None else f" (about {format_duration(self.seconds)})"
        people = "1 person" if self.people == 1 else f"{self.people} people"
        inputs = "1 distinct input" if self.inputs == 1 else f"{self.inputs} distinct inputs"
        return (
            f"{people}, {inputs}: {self.stored} in the store, {len(self._missing)} to run "
            f"through {self._runner.name}{duration}."
        )

    def _extract(self, rows: Iterable[int], runner: BackboneRunner) -> None:
        """Extracts what the store lacks of some rows and links their people to all keys."""
        items: dict[tuple[str, ...], Item] = {}
        people: dict[tuple[str, ...], list[str]] = {}
        for row in rows:
            items.setdefault(self.keys[row], self._items[row])
            people.setdefault(self.keys[row], []).append(self.profiles[row].id)
        stored = runner.store.has_features([key for keys in people for key in keys])
        runner.store.link(
            (person, key)
            for keys, ids in people.items()
            for person in ids
            for key in keys
            if key in stored
        )
        jobs = [
            Job(items[keys], keys, tuple(ids), runner.backbone.length(items[keys]))
            for keys, ids in people.items()
            if not stored.issuperset(keys)
        ]
        if jobs:
            runner.run(jobs, len(people))


def format_duration(seconds: float) -> str:
    """A duration rounded to seconds, minutes or tenths of an hour: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

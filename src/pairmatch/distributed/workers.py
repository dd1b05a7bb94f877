"""What runs in the processes of a cluster."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pairmatch.core.errors import BackboneError, ClusterError, ImageError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.types import Item, Profile, Usage
from pairmatch.distributed.parts import PartRecipe
from pairmatch.features.engines import Extracted, is_out_of_memory, pooled_vectors
from pairmatch.io.store import content_key


class ExtractionWorker:
    """Decodes photos in threads and runs the model on one batch at a time.

    Args:
        recipe: How to build the backbone.
        poolers: At least one.
        dtype: Number format of the vectors.
        fingerprint: What the backbone's fingerprint must be.
        threads: Number of CPUs of this process.
    """

    def __init__(
        self,
        recipe: PartRecipe,
        poolers: Sequence[Pooler],
        dtype: str,
        fingerprint: Mapping[str, Any],
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._backbone: Backbone = recipe.build(threads)
        self._poolers = poolers
        self._dtype = dtype
        self._fingerprint = fingerprint
        self._model = threading.Lock()
        self._loaded = False

    def start(self) -> None:
        """Checks that this node computes what the keys promise.

        Raises:
            ClusterError: Its libraries or weights differ from the driver's.
        """
        _check_fingerprint(self._backbone.fingerprint(), self._fingerprint, "vectors")

    def run(self, items: Sequence[Item]) -> Extracted:
        """Vectors of a batch; photos that cannot be read are reported, the rest is extracted."""
        before = self._backbone.truncated
        try:
            vectors = self._extract(items)
        except ImageError as error:
            if len(items) == 1:
                return Extracted([], {0: str(error)})
            return _joined([self.run([item]) for item in items])
        return Extracted(vectors, truncated=self._backbone.truncated - before)

    def _extract(self, items: Sequence[Item]) -> list[Any]:
        names = [f"person {row + 1} of a batch" for row in range(len(items))]
        try:
            if not self._loaded:  # loading happens once, before threads share the backbone
                with self._model:
                    prepared = self._backbone.prepare(items)
                    self._loaded = True
            else:
                prepared = self._backbone.prepare(items)
            with self._model:
                return pooled_vectors(self._backbone, self._poolers, self._dtype, prepared, names)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(items) == 1:
                raise BackboneError(
                    f"{type(self._backbone).__name__} ran out of memory on a single person: "
                    "reduce its image size, or choose a smaller model or other nodes."
                ) from error
        halves = [self._extract(items[: len(items) // 2]), self._extract(items[len(items) // 2 :])]
        return [np.concatenate(parts) for parts in zip(*halves, strict=True)]


def _check_fingerprint(there: Mapping[str, Any], here: Mapping[str, Any], what: str) -> None:
    """Raises ClusterError if a node would compute something else than the driver."""
    if content_key(dict(there)) == content_key(dict(here)):
        return
    differing = [
        f"{name}: {here.get(name)!r} here, {there.get(name)!r} there"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    raise ClusterError(
        f"A node of the cluster would compute other {what} than this machine: install the same "
        f"versions and weights on all nodes ({'; '.join(differing)})."
    )


def _joined(results: Sequence[Extracted]) -> Extracted:
    """Results of single people as the result of their batch."""
    read = [result.vectors for result in results if not result.problems]
    problems = {row: result.problems[0] for row, result in enumerate(results) if result.problems}
    vectors = [np.concatenate(parts) for parts in zip(*read, strict=True)]
    return Extracted(vectors, problems, sum(result.truncated for result in results))


class MetadataWorker:
    """Generates metadata of a few people at a time.

    Args:
        recipe: How to build the generator.
        fingerprint: What the generator's fingerprint must be.
        threads: Number of CPUs of this process.
    """

    def __init__(self, recipe: PartRecipe, fingerprint: Mapping[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self._generator = recipe.build(threads)
        self._fingerprint = fingerprint

    def start(self) -> None:
        """Checks that this node generates what the keys promise.

        Raises:
            ClusterError: Its libraries or weights differ from the driver's.
        """
        _check_fingerprint(self._generator.fingerprint(), self._fingerprint, "metadata")

    def run(self, profiles: Sequence[Profile]) -> list[tuple[int, Any, Usage]]:
        """Position, outcome and cost of each answer; metadata as JSON values."""
        outcomes: list[tuple[int, Any, Usage]] = []

        def keep(position: int, outcome: Any, usage: Usage) -> None:
            is_metadata = hasattr(outcome, "model_dump")
            value = outcome.model_dump(mode="json") if is_metadata else outcome
            outcomes.append((position, value, usage))

        self._generator.generate(profiles, keep)
        return outcomes

"""What the backbone reads of the people of a run, decoded ahead of the passes that need it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import DataError, ImageError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.progress import map_in_threads
from pairmatch.core.types import Item
from pairmatch.data import Pairs
from pairmatch.features.inputs import build_items, digest_items
from pairmatch.features.running import worker_count
from pairmatch.finetuning.caching import MicroBatch
from pairmatch.finetuning.ranks import Ranks


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The people of some pairs, as the backbone reads them.

    Attributes:
        ids: Those of side a, then those of side b; of all people in one-sided sets.
        items: What is read of each.
        lengths: [people] estimated number of tokens of each.
        digests: Digest of what is read of each person.
        pairs: The pairs, with features of width 1 in place of those that change in training.
    """

    ids: tuple[str, ...]
    items: tuple[Item, ...]
    lengths: Ints
    digests: tuple[str, ...]
    pairs: PairedFeatures

    @classmethod
    def of(
        cls, pairs: Pairs, backbone: Backbone, prompt: str | None, attributes: Sequence[str]
    ) -> People:
        """Reads and digests what the backbone reads of each person.

        Raises:
            DataError: People with nothing to read, or with missing photo files, all at once.
        """
        ids = pairs.ids_a if pairs.sides == 1 else (*pairs.ids_a, *pairs.ids_b)
        profiles = [pairs.profiles[person] for person in ids]
        items = build_items(profiles, backbone, prompt, attributes)
        blank = np.zeros((len(ids), 1), np.float32)
        return cls(
            tuple(ids),
            tuple(items),
            np.array([backbone.length(item) for item in items], np.int64),
            tuple(digest_items(profiles, items, backbone)),
            with_features(pairs, blank),
        )

    def micro_batches(self, rows: Ints, size: int) -> list[Ints]:
        """Positions in `rows`, people of similar length together, at most `size` each."""
        order = np.argsort(-self.lengths[rows], kind="stable")
        return [order[start : start + size] for start in range(0, len(rows), size)]

    def prepared(self, backbone: Backbone, prepare: Callable[[], Any]) -> Any:
        """What `prepare` returns for some of the people: an input of the backbone.

        Raises:
            DataError: A photo cannot be decoded; lists all people with such a photo.
        """
        try:
            return prepare()
        except ImageError as error:
            problems = self._unreadable(backbone)
            if not problems:  # it can be read by now
                raise
            raise DataError(
                f"Photos of {len(problems)} of {len(self.ids)} people cannot be read:", problems
            ) from error

    def _unreadable(self, backbone: Backbone) -> list[str]:
        def problem(item: Item) -> ImageError | None:
            try:
                backbone.prepare([item])
            except ImageError as error:
                return error
            return None

        problems = map_in_threads(problem, self.items, workers=backbone.workers or worker_count())
        return [
            f"{person}: {error}"
            for person, error in zip(self.ids, problems, strict=True)
            if error is not None
        ]


def with_features(pairs: Pairs, features: Any) -> PairedFeatures:
    """The pairs with features of the people of side a, then of side b."""
    if pairs.sides == 1:
        return pairs.with_features(features)
    return pairs.with_features(features[: len(pairs.ids_a)], features[len(pairs.ids_a) :])


class Decoder:
    """Prepares the micro-batches of this process in threads, ahead of the passes.

    Args:
        people: People that batches are made of.
        backbone: Prepares the inputs.
        pool: Threads.
        ranks: Processes that share each batch: micro-batch i belongs to process i modulo their
            number.
        size: Number of people of a micro-batch.
    """

    def __init__(
        self,
        people: People,
        backbone: Backbone,
        pool: ThreadPoolExecutor,
        ranks: Ranks,
        size: int,
    ) -> None:
        self.people = people
        self.backbone = backbone
        self.pool = pool
        self.ranks = ranks
        self.size = size

    def batches(self, batches: Sequence[Ints]) -> Iterator[list[MicroBatch]]:
        """The micro-batches of this process of each batch; the next batch is decoded meanwhile.

        Args:
            batches: Rows of the people of each batch.
        """
        ahead: deque[list[MicroBatch]] = deque()
        waiting = iter(batches)
        for _ in batches:
            while len(ahead) < 2 and (rows := next(waiting, None)) is not None:
                ahead.append(self._submit(rows))
            yield ahead.popleft()

    def _submit(self, rows: Ints) -> list[MicroBatch]:
        parts = []
        for number, positions in enumerate(self.people.micro_batches(rows, self.size)):
            if number % self.ranks.count != self.ranks.index:
                continue
            items = [self.people.items[row] for row in rows[positions]]
            future: Future[Any] = self.pool.submit(self.backbone.prepare, items)
            prepared = partial(self.people.prepared, self.backbone, future.result)
            parts.append(MicroBatch(number, torch.from_numpy(positions), prepared))
        return parts

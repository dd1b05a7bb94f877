"""Batches of pairs: distinct people on each side, every match and open pair marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.arrays import Ints
from pairmatch.core.config import TrainingConfig
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.negatives import mine_negatives


class Batches:
    """Draws batches of training pairs, with rejected partners and hard negatives as extra ones.

    Args:
        data: Training pairs.
        config: Supplies batch size, seed and number of hard negatives.
    """

    def __init__(self, data: PairedFeatures, config: TrainingConfig) -> None:
        self.data = data
        self.size = config.batch_size
        self.rng = np.random.default_rng(config.seed)
        self.people = len(data.a if data.b is None else data.b)
        self.matches = self._codes(data.matches)
        self.open = self._codes(data.open)
        self.negatives_of_a: dict[int, list[int]] = defaultdict(list)
        self.negatives_of_b: dict[int, list[int]] = defaultdict(list)
        for a, b in data.rejected.tolist():
            for first, second in ((a, b), (b, a)) if data.one_sided else ((a, b),):
                self.negatives_of_a[first].append(second)
                self.negatives_of_b[second].append(first)
        if config.hard_negatives:
            skip = config.hard_negatives_skip
            of_a, of_b = mine_negatives(data, config.hard_negatives, skip=skip)
            for a, b in of_a.tolist():
                self.negatives_of_a[a].append(b)
            for a, b in of_b.tolist():
                self.negatives_of_b[b].append(a)

    def epoch(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yields rows of a [A] and b [B], and the matches and open pairs among them [A, B] bool."""
        order = self.data.matches[self.rng.permutation(len(self.data.matches))]
        batches = self._oriented(order) if self.data.one_sided else self._chunks(order)
        for pairs in batches:
            if len(pairs) < 2:
                continue
            rows_a, rows_b = self._with_negatives(_distinct(pairs[:, 0]), _distinct(pairs[:, 1]))
            codes = rows_a[:, None] * self.people + rows_b[None, :]
            positives, unknown = (
                torch.from_numpy(_contains(known, codes)) for known in (self.matches, self.open)
            )
            yield torch.from_numpy(rows_a), torch.from_numpy(rows_b), positives, unknown

    def _codes(self, pairs: Ints) -> Ints:
        """[P] one number per pair of rows, ascending; in one-sided sets, of both directions."""
        if self.data.one_sided:
            pairs = np.concatenate([pairs, pairs[:, ::-1]])
        codes: Ints = np.unique(pairs[:, 0] * self.people + pairs[:, 1])
        return codes

    def _chunks(self, order: Ints) -> Iterator[Ints]:
        for start in range(0, len(order), self.size):
            yield order[start : start + self.size]

    def _oriented(self, order: Ints) -> Iterator[Ints]:
        """Batches of a one-sided set in which no person is on both sides.

        A person on both sides would be their own negative.
        """
        waiting = order.tolist()
        while waiting:
            sides: dict[int, int] = {}
            batch: list[tuple[int, int]] = []
            later: list[list[int]] = []
            for position, (i, j) in enumerate(waiting):
                if len(batch) == self.size:
                    later += waiting[position:]
                    break
                swap = bool(self.rng.integers(2))
                for first, second in ((j, i), (i, j)) if swap else ((i, j), (j, i)):
                    if sides.get(first, 0) == 0 and sides.get(second, 1) == 1:
                        sides[first] = 0
                        sides[second] = 1
                        batch.append((first, second))
                        break
                else:
                    later.append([i, j])
            yield np.array(batch, np.int64)
            waiting = later

    def _with_negatives(self, rows_a: Ints, rows_b: Ints) -> tuple[Ints, Ints]:
        """Adds the negatives of the batch, at random, at most a batch's worth per side."""
        if not (self.negatives_of_a or self.negatives_of_b):
            return rows_a, rows_b
        batch_a = set(rows_a.tolist())
        batch_b = set(rows_b.tolist())
        more_b = {b for a in rows_a.tolist() for b in self.negatives_of_a.get(a, ())} - batch_b
        more_a = {a for b in rows_b.tolist() for a in self.negatives_of_b.get(b, ())} - batch_a
        if self.data.one_sided:
            more_b -= batch_a
            more_a -= batch_b | more_b
        return self._join(rows_a, more_a), self._join(rows_b, more_b)

    def _join(self, rows: Ints, more: set[int]) -> Ints:
        extra = np.array(sorted(more), np.int64)
        if len(extra) > self.size:
            extra = self.rng.choice(extra, self.size, replace=False)
        return np.concatenate([rows, extra])


def _contains(known: Ints, codes: Ints) -> npt.NDArray[np.bool_]:
    """[A, B] bool, whether each of [A, B] codes is one of the ascending known ones."""
    if not len(known):
        return np.zeros(codes.shape, bool)
    nearest = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    contained: npt.NDArray[np.bool_] = known[nearest] == codes
    return contained


def _distinct(values: Ints) -> Ints:
    """The values in order of first appearance, each once."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]

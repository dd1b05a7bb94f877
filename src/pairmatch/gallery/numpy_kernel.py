"""Scores of many rows by NumPy, for environments without torch.

It finds the same rows as the module `torch_kernel`, in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.gallery.shortlist import RowsKept
from pairmatch.rules import Mask

_UNIT = 2.0**-24  # relative error of rounding


class Scorer:
    """Scores chunks of rows, with a bound on the error."""

    unit = _UNIT

    def __init__(self, queries: Vectors, longest: float | None, buffer_rows: int) -> None:
        self._queries = np.ascontiguousarray(queries, np.float32)
        self._lengths = np.linalg.norm(self._queries, axis=1)
        self._longest = longest
        self._buffer = np.empty((buffer_rows, len(queries)), np.float32)

    def score(self, part: Vectors, bonus: Vectors | None) -> tuple[Vectors, Vectors]:
        """Scores [n, Q] of rows, valid until the next call, and the largest error [Q] of each."""
        block = np.asarray(part, np.float32)
        score = self._buffer[: len(block)]
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(block, self._queries.T, out=score)
            length = self._longest
            if length is None:
                length = float(np.linalg.norm(block, axis=1).max())
            # The rounding of sums; see the other kernel for the sources of these bounds
            error = block.shape[1] * np.float32(2.0**-23) * self._lengths * np.float32(length)
            if bonus is not None:
                score += np.asarray(bonus, np.float32)[:, None]
                terms = self._lengths * np.float32(length) + np.abs(bonus).max()
                error = error + np.float32(_UNIT + 2.0**-22) * terms
        return score, error.astype(np.float32)

    @staticmethod
    def hide(score: Vectors, rows: Ints | Mask, query: int | None = None) -> None:
        """Makes rows not eligible, for one query or for all."""
        if query is None:
            score[rows] = -np.inf
        else:
            score[rows, query] = -np.inf


class Shortlist(RowsKept):
    """Collects the rows whose upper bound reaches the kth best lower bound of their query.

    Args:
        queries: Number of queries Q.
        k: Number of rows to find for each query.
        bonus: [N] float32, added to the score of each row.
    """

    def __init__(self, queries: int, k: int, bonus: Vectors | None) -> None:
        super().__init__(k, bonus)
        self.floor = np.full(queries, -np.inf, np.float32)  # at most the kth best exact score
        self.lows = np.full((queries, k), -np.inf, np.float32)  # k best lower bounds

    def offer(self, score: Vectors, rows: Ints, error: Vectors, unit: float) -> None:
        """Adds the rows of a chunk that may be among the k best.

        Args:
            score: [n, Q], −inf for rows that are not eligible.
            rows: [n] int64 row numbers.
            error: [Q] float32: largest absolute error of a score.
            unit: Largest relative error of a score, in addition.
        """
        is_first = not self.rows and len(score) > self.k
        with np.errstate(invalid="ignore", over="ignore"):
            if is_first:
                best = np.partition(score, len(score) - self.k, axis=0)[-self.k :].T
                lows = best - error[:, None] - np.abs(best) * np.float32(unit * 2)
                self.lows = -np.sort(-np.where(np.isnan(lows), -np.inf, lows), axis=1)
                self.floor = self.lows[:, -1]
            margin = self.floor - error
            bound = np.where(margin > 0, margin * (1 - 3 * unit), margin * (1 + 3 * unit))
            slackened = bound - np.abs(bound) * 2.0**-20
            bound = np.where(np.isfinite(bound), slackened, bound).astype(np.float32)
            place, query = np.nonzero((score >= bound) & (score > -np.inf))
            if not len(query):
                return
            value = score[place, query]
            slack = np.asarray(error[query] + np.abs(value) * unit * 2, np.float32)
            if not is_first:  # the floor already includes the lower bounds of the first chunk
                self._raise_floor(query, value - slack)
            high = value + slack
        kept = high >= self.floor[query]
        self.keep(query[kept], np.asarray(rows)[place[kept]], high[kept])

    def _raise_floor(self, query: Ints, low: Vectors) -> None:
        """Merges lower bounds into the k best of each query."""
        order = np.lexsort((-low, query))
        query = query[order]
        low = low[order]
        first = np.searchsorted(query, np.arange(len(self.lows)))
        place = np.arange(len(query)) - first[query]
        inside = place < self.k
        fresh = np.full_like(self.lows, -np.inf)
        fresh[query[inside], place[inside]] = low[inside]
        merged = -np.sort(-np.concatenate([self.lows, fresh], axis=1), axis=1)
        self.lows = merged[:, : self.k]
        self.floor = self.lows[:, -1]

    def candidates(self) -> Iterator[tuple[int, Ints]]:
        """Rows that may be among the k best, of each query."""
        return self.by_query(self.floor)

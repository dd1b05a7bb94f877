"""The rows that may be among the k best of each query, by bounds on their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pairmatch.core.arrays import Ints, Vectors

_BLOCK = 32  # rows per block; only blocks whose best score reaches the bound are searched


class Stack:
    """Arrays [n, K] as one array, without a copy; each may be memory-mapped.

    Args:
        arrays: At least one, all of the same width.
    """

    def __init__(self, arrays: Sequence[Vectors]) -> None:
        self.arrays = list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        self.shape = (int(self.starts[-1]), self.arrays[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def chunks(self, rows: int) -> Iterator[tuple[int, Vectors]]:
        """Yields all rows in parts of at most `rows`, each with the number of its first row."""
        for start, array in zip(self.starts, self.arrays, strict=False):
            for offset in range(0, len(array), rows):
                yield int(start) + offset, array[offset : offset + rows]

    def take(self, rows: Ints) -> Vectors:
        """[n, K]: a copy of some rows, in the order given."""
        if len(self.arrays) == 1:
            return self.arrays[0][rows]
        taken = np.empty((len(rows), self.shape[1]), np.float32)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(owner):
            inside = owner == number
            taken[inside] = self.arrays[number][rows[inside] - self.starts[number]]
        return taken


class Shortlist:
    """Collects the rows whose upper bound reaches the kth best lower bound of their query.

    Args:
        queries: Number of queries Q.
        k: Number of rows to find for each query.
        bonus: [N] float32, added to the score of each row.
    """

    def __init__(self, queries: int, k: int, bonus: Vectors | None) -> None:
        self.k = k
        self.bonus = bonus
        self.floor = torch.full((queries,), -torch.inf)  # at most the kth best exact score
        self.lows = torch.full((queries, k), -torch.inf)  # k best lower bounds
        self.queries: list[Ints] = []
        self.rows: list[Ints] = []
        self.highs: list[Vectors] = []

    def offer(self, score: torch.Tensor, rows: Ints, error: torch.Tensor, unit: float) -> None:
        """Adds the rows of a chunk that may be among the k best.

        Args:
            score: [n, Q], −inf for rows that are not eligible.
            rows: [n] int64 row numbers.
            error: [Q] float32: largest absolute error of a score.
            unit: Largest relative error of a score, in addition.
        """
        is_first = not self.rows and len(score) > self.k
        if is_first:
            # The k best of the first chunk set a floor; without one, every row would be kept
            best = score.T.contiguous().topk(self.k, dim=1).values.float()
            self.lows = best - error[:, None] - best.abs() * unit * 2
            self.lows = torch.where(torch.isnan(self.lows), -torch.inf, self.lows)
            self.floor = self.lows.min(1).values
        query, index, value = _reaching(score, self._bound(score.dtype, error, unit))
        if not len(query):
            return
        slack = error[query] + value.abs() * unit * 2
        if not is_first:  # the floor already includes the lower bounds of the first chunk
            self._raise_floor(query, value - slack)
        high = value + slack
        kept = high >= self.floor[query]
        self.queries.append(query[kept].numpy())
        self.rows.append(np.asarray(rows)[index[kept].numpy()])
        self.highs.append(high[kept].numpy())

    def _bound(self, dtype: torch.dtype, error: torch.Tensor, unit: float) -> torch.Tensor:
        """[Q]: the lowest score whose upper bound, score (1 ± unit) + error, reaches the floor."""
        margin = self.floor - error
        bound = torch.where(margin > 0, margin * (1 - 3 * unit), margin * (1 + 3 * unit))
        bound = torch.where(torch.isfinite(bound), bound - bound.abs() * 2.0**-7, bound)
        return bound.to(dtype)

    def _raise_floor(self, query: torch.Tensor, low: torch.Tensor) -> None:
        """Merges lower bounds into the k best of each query."""
        order = torch.argsort(low, descending=True)
        order = order[torch.argsort(query[order], stable=True)]
        query = query[order]
        low = low[order]
        first = torch.searchsorted(query, torch.arange(len(self.lows)))
        place = torch.arange(len(query)) - first[query]
        inside = place < self.k
        fresh = torch.full_like(self.lows, -torch.inf)
        fresh[query[inside], place[inside]] = low[inside]
        self.lows = torch.cat([self.lows, fresh], dim=1).topk(self.k, dim=1).values
        self.floor = self.lows[:, -1]

    def best(self, queries: Vectors, vectors: Stack) -> tuple[Ints, Vectors]:
        """Scores the remaining rows in float64 and sorts them.

        Returns:
            [Q, k] int64 rows, −1 if there are fewer; [Q, k] float32 scores, −inf there.
        """
        rows = np.full((len(queries), self.k), -1, np.int64)
        scores = np.full((len(queries), self.k), -np.inf, np.float32)
        if not self.queries:
            return rows, scores
        query = np.concatenate(self.queries)
        row = np.concatenate(self.rows)
        kept = np.concatenate(self.highs) >= self.floor.numpy()[query]
        query = query[kept]
        row = row[kept]
        order = np.lexsort((row, query))
        query = query[order]
        row = row[order]
        starts = np.searchsorted(query, np.arange(len(queries) + 1))
        wide = queries.astype(np.float64)
        for number in range(len(queries)):
            candidates = row[starts[number] : starts[number + 1]]
            # One row at a time and not by BLAS, so that equal rows get equal scores
            value = np.einsum("nk,k->n", vectors.take(candidates).astype(np.float64), wide[number])
            if self.bonus is not None:
                value += self.bonus[candidates]
            best = np.argsort(-value, kind="stable")[: self.k]
            rows[number, : len(best)] = candidates[best]
            scores[number, : len(best)] = value[best]
        return rows, scores


def _reaching(
    score: torch.Tensor, bound: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, row index and float32 score of the finite scores [n, Q] that reach a bound [Q]."""
    hits: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    whole = len(score) // _BLOCK * _BLOCK
    if whole:
        blocks = score[:whole].view(-1, _BLOCK, score.shape[1])
        block, query = torch.nonzero(blocks.amax(1) >= bound, as_tuple=True)
        inner = blocks[block, :, query]
        reaches = (inner >= bound[query, None]) & (inner > -torch.inf)
        hit, offset = torch.nonzero(reaches, as_tuple=True)
        hits.append((query[hit], block[hit] * _BLOCK + offset, inner[hit, offset]))
    if whole < len(score):
        rest = score[whole:]
        offset, query = torch.nonzero((rest >= bound) & (rest > -torch.inf), as_tuple=True)
        hits.append((query, offset + whole, rest[offset, query]))
    queries, indices, values = (torch.cat(parts) for parts in zip(*hits, strict=True))
    return queries, indices, values.float()

"""Many arrays as one, and the exact ranking of the rows that bounds could not rule out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pairmatch.core.arrays import Ints, Vectors


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


def rank_exactly(
    queries: Vectors,
    stack: Stack,
    k: int,
    bonus: Vectors | None,
    candidates: Iterable[tuple[int, Ints]],
) -> tuple[Ints, Vectors]:
    """Scores the remaining rows of each query in float64 and sorts them.

    Args:
        queries: [Q, K] float32.
        stack: [N, K] float32.
        k: Number of rows to find for each query.
        bonus: [N] float32, added to the score of each row.
        candidates: Numbers of queries, each with its rows in ascending order.

    Returns:
        [Q, k] int64 rows, −1 if there are fewer; [Q, k] float32 scores, −inf there.
    """
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    wide = queries.astype(np.float64)
    for number, row in candidates:
        # One row at a time and not by BLAS, so that equal rows get equal scores
        value = np.einsum("nk,k->n", stack.take(row).astype(np.float64), wide[number])
        if bonus is not None:
            value += bonus[row]
        best = np.argsort(-value, kind="stable")[:k]
        rows[number, : len(best)] = row[best]
        scores[number, : len(best)] = value[best]
    return rows, scores


class RowsKept:
    """Rows that may be among the k best of each query, with upper bounds on their scores.

    Args:
        k: Number of rows to find for each query.
        bonus: [N] float32, added to the score of each row.
    """

    def __init__(self, k: int, bonus: Vectors | None) -> None:
        self.k = k
        self.bonus = bonus
        self.queries: list[Ints] = []
        self.rows: list[Ints] = []
        self.highs: list[Vectors] = []

    def keep(self, queries: Ints, rows: Ints, highs: Vectors) -> None:
        """Adds rows [n] of queries [n] with upper bounds [n]."""
        self.queries.append(queries)
        self.rows.append(rows)
        self.highs.append(highs)

    def by_query(self, floor: Vectors) -> Iterator[tuple[int, Ints]]:
        """Rows of each query whose upper bound reaches its floor, in ascending order.

        Args:
            floor: [Q]: at most the kth best exact score.
        """
        if not self.queries:
            return
        query = np.concatenate(self.queries)
        row = np.concatenate(self.rows)
        kept = np.concatenate(self.highs) >= floor[query]
        query = query[kept]
        row = row[kept]
        order = np.lexsort((row, query))
        query = query[order]
        row = row[order]
        starts = np.searchsorted(query, np.arange(len(floor) + 1))
        for number in range(len(floor)):
            yield number, row[starts[number] : starts[number + 1]]

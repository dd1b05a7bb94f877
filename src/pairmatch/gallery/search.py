"""Exact search: the best candidates of many queries by inner product, provably the same as scoring everybody.

On CPUs with bfloat16 instructions everybody is scored in bfloat16, at twice the speed; the rounding
error of each score is bounded by the lengths of what rounding took away (Cauchy-Schwarz), so that
whoever might be among the first k is kept and scored again in full. Elsewhere the same is done with
float32 alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.arrays import Ints
from pairmatch.core.devices import resolve_dtype
from pairmatch.core.errors import ConfigurationError

_CHUNK_ROWS = 16384
_CHUNK_QUERIES = 1024
_BLOCK = 32  # candidates whose best score is looked at before any of them is
_FEW_ROWS = 0.5  # below this share of eligible rows they are copied together first
_UNIT = {
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
    torch.float32: 2.0**-24,
}  # relative error of rounding


Vectors = npt.NDArray[np.float32]


class Stack:
    """Arrays [n, K] one below the other as if they were one, without a copy; each may be memory-mapped.

    Args:
        arrays: At least one, of one width.
    """

    def __init__(self, arrays: Sequence[Vectors]) -> None:
        self.arrays = list(arrays)
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])
        self.shape = (int(self.starts[-1]), self.arrays[0].shape[1])
        self.ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def chunks(self, rows: int) -> Iterator[tuple[int, Vectors]]:
        """All rows in parts of at most `rows`, each with the number of its first row."""
        for start, array in zip(self.starts, self.arrays, strict=False):
            for place in range(0, len(array), rows):
                yield int(start) + place, array[place : place + rows]

    def take(self, rows: Ints) -> Vectors:
        """[n, K]: a copy of some rows, in the order given."""
        if len(self.arrays) == 1:
            return self.arrays[0][rows]
        taken = np.empty((len(rows), self.shape[1]), np.float32)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(owner):
            own = owner == number
            taken[own] = self.arrays[number][rows[own] - self.starts[number]]
        return taken


def top_k(
    queries: npt.NDArray[np.float32],
    vectors: Vectors | Sequence[Vectors],
    k: int,
    *,
    rows: Ints | None = None,
    excluded: Sequence[Ints] | None = None,
    bonus: Vectors | None = None,
    longest: float | None = None,
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The k best rows of each query, best first; equal scores in the order of rows.

    Args:
        queries: [Q, K] float32.
        vectors: [N, K] float32; may be memory-mapped; or several arrays, whose rows count on from
            one to the next.
        k: Most candidates per query, at least 1.
        rows: [n] int64, rising: rows that are eligible; all by default.
        excluded: Per query, rows that are not.
        bonus: [N] float32, finite: added to the score of each row, whoever asks.
        longest: No vector is longer, for example 1.0001 where all have unit length; measured where
            it is None.

    Returns:
        [Q, k] int64 rows, −1 where a query has fewer candidates; [Q, k] float32 scores, −inf there.
        Scores are sums in float64, rounded.

    Raises:
        ConfigurationError: A k below 1, or widths that do not fit.
    """
    if k < 1:
        raise ConfigurationError(f"`top_k(k=...)` must be at least 1, got {k}.")
    arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
    shapes = {array.shape[1] if array.ndim == 2 else None for array in [queries, *arrays]}
    if len(shapes) > 1 or None in shapes or not arrays:
        shown = " and ".join(str(list(array.shape)) for array in [queries, *arrays[:3]])
        raise ConfigurationError(f"Queries and vectors need one width, got shapes {shown}.")
    stack = Stack(arrays)
    found = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    eligible = len(stack) if rows is None else len(rows)
    if not eligible or not len(queries):
        return found, scores
    for start in range(0, len(queries), _CHUNK_QUERIES):
        part = slice(start, min(start + _CHUNK_QUERIES, len(queries)))
        own = None if excluded is None else excluded[part]
        found[part], scores[part] = _some(queries[part], stack, k, rows, own, bonus, longest)
    return found, scores


def _some(
    queries: npt.NDArray[np.float32],
    vectors: Stack,
    k: int,
    rows: Ints | None,
    excluded: Sequence[Ints] | None,
    bonus: Vectors | None,
    longest: float | None,
) -> tuple[Ints, npt.NDArray[np.float32]]:
    dtype = _fast_dtype()
    exact = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    rounded = exact.to(dtype)
    lengths = exact.norm(dim=1)
    lost = (exact - rounded.float()).norm(dim=1)
    count = len(queries)
    kept = _Kept(count, k, bonus)
    buffer = torch.empty(min(_CHUNK_ROWS, len(vectors)), count, dtype=dtype)
    gathered = rows is not None and len(rows) < _FEW_ROWS * len(vectors)
    alive = None
    if rows is not None and not gathered:
        alive = np.zeros(len(vectors), bool)
        alive[rows] = True
    if gathered and rows is not None:
        parts = (
            (names, vectors.take(names))
            for names in (
                rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)
            )
        )
    else:
        parts = (
            (np.arange(start, start + len(part)), part)
            for start, part in vectors.chunks(_CHUNK_ROWS)
        )
    for names, part in _small_first(parts, max(2048, 8 * k)):
        block = _tensor(part)
        small = block.to(dtype)
        added = (
            None
            if bonus is None
            else torch.from_numpy(np.ascontiguousarray(bonus[names], np.float32))
        )
        score = _product(small, rounded, added, buffer)
        # |q·x − q̂·x̂| ≤ ‖q − q̂‖‖x‖ + ‖q̂‖‖x − x̂‖, plus the rounding of sums; that of the score
        # itself is its unit
        length = float(block.norm(dim=1).max()) if longest is None else longest
        loss = 0.0 if dtype == torch.float32 else _UNIT[dtype] * length
        error = (
            lost * length + (lengths + lost) * loss + queries.shape[1] * 2.0**-23 * lengths * length
        )
        if (
            added is not None
        ):  # sums with the bonus round in proportion to what was added up, not to the result
            error = error + (_UNIT[dtype] + 2.0**-22) * (lengths * length + added.abs().max())
        if alive is not None and not alive[names[0] : names[-1] + 1].all():
            score[torch.from_numpy(~alive[names[0] : names[-1] + 1])] = -torch.inf
        if excluded is not None:
            _exclude(score, names, excluded)
        kept.offer(score, names, error, _UNIT[dtype])
    return kept.best(queries, vectors)


def _small_first(
    parts: Iterable[tuple[Ints, Vectors]], rows: int
) -> Iterator[tuple[Ints, Vectors]]:
    """The same rows, the first part of them small.

    Its own k best, by a full search, are the first floor.
    """
    for number, (names, part) in enumerate(parts):
        if number == 0 and len(names) > 2 * rows:
            yield names[:rows], part[:rows]
            names, part = names[rows:], part[rows:]
        yield names, part


def _product(
    block: torch.Tensor, queries: torch.Tensor, bonus: torch.Tensor | None, buffer: torch.Tensor
) -> torch.Tensor:
    """[n, Q] scores, in the buffer.

    Fresh memory for each chunk would cost as much as looking through it.
    """
    score = buffer[: len(block)]
    if score.dtype == torch.float32 and _numpy_is_faster():
        np.matmul(block.numpy(), queries.numpy().T, out=score.numpy())
    else:
        torch.mm(block, queries.T, out=score)
    if bonus is None:
        return score
    return (
        score.add_(bonus[:, None])
        if score.dtype == torch.float32
        else score.float() + bonus[:, None]
    )


def _exclude(score: torch.Tensor, names: Ints, excluded: Sequence[Ints]) -> None:
    for query, rows in enumerate(excluded):
        if len(rows):
            places = np.searchsorted(names, rows)
            inside = places < len(names)
            inside[inside] = names[places[inside]] == np.asarray(rows)[inside]
            if inside.any():
                score[torch.from_numpy(places[inside]), query] = -torch.inf


class _Kept:
    """Who may still be among the first k of each query, by bounds on their scores."""

    def __init__(self, queries: int, k: int, bonus: Vectors | None) -> None:
        self.k, self.bonus = k, bonus
        self.floor = torch.full(
            (queries,), -torch.inf
        )  # below the kth best exact score, for certain
        self.lows = torch.full((queries, k), -torch.inf)  # k best lower bounds
        self.queries: list[npt.NDArray[np.int64]] = []
        self.rows: list[npt.NDArray[np.int64]] = []
        self.highs: list[npt.NDArray[np.float32]] = []

    def offer(self, score: torch.Tensor, names: Ints, error: torch.Tensor, unit: float) -> None:
        """Takes the scores of a chunk [n, Q], each within `error` [Q] and a relative `unit` of the exact one."""
        rows = len(score)
        if not self.rows and rows > self.k:
            # The first chunk's own k best are a floor already: else everybody in it would be looked
            # at
            best = score.T.contiguous().topk(self.k, dim=1).values.float()
            self.lows = best - error[:, None] - best.abs() * unit * 2
            self.lows = torch.where(torch.isnan(self.lows), -torch.inf, self.lows)
            self.floor = self.lows.min(1).values
        # high = score (1 ± unit) + error must reach the floor
        margin = self.floor - error
        bound = torch.where(margin > 0, margin * (1 - 3 * unit), margin * (1 + 3 * unit))
        bound = torch.where(torch.isfinite(bound), bound - bound.abs() * 2.0**-7, bound).to(
            score.dtype
        )
        whole = rows // _BLOCK * _BLOCK
        hits = []
        if whole:
            blocks = score[:whole].view(-1, _BLOCK, score.shape[1])
            block, query = torch.nonzero(blocks.amax(1) >= bound, as_tuple=True)
            inner = blocks[block, :, query]
            hit, place = torch.nonzero(
                (inner >= bound[query, None]) & (inner > -torch.inf), as_tuple=True
            )
            hits.append((query[hit], block[hit] * _BLOCK + place, inner[hit, place]))
        if whole < rows:
            rest = score[whole:]
            place, query = torch.nonzero((rest >= bound) & (rest > -torch.inf), as_tuple=True)
            hits.append((query, place + whole, rest[place, query]))
        query = torch.cat([one for one, _, _ in hits])
        if not len(query):
            return
        place, value = (
            torch.cat([one for _, one, _ in hits]),
            torch.cat([one for _, _, one in hits]).float(),
        )
        slack = error[query] + value.abs() * unit * 2
        if self.rows or rows <= self.k:  # those of the first chunk are counted already
            self._raise_floor(query, value - slack)
        high = value + slack
        alive = high >= self.floor[query]
        self.queries.append(query[alive].numpy())
        self.rows.append(np.asarray(names)[place[alive].numpy()])
        self.highs.append(high[alive].numpy())

    def _raise_floor(self, query: torch.Tensor, low: torch.Tensor) -> None:
        """Merges lower bounds into each query's k best."""
        order = torch.argsort(low, descending=True)
        order = order[torch.argsort(query[order], stable=True)]
        query, low = query[order], low[order]
        first = torch.searchsorted(query, torch.arange(len(self.lows)))
        place = torch.arange(len(query)) - first[query]
        inside = place < self.k
        fresh = torch.full_like(self.lows, -torch.inf)
        fresh[query[inside], place[inside]] = low[inside]
        self.lows = torch.cat([self.lows, fresh], dim=1).topk(self.k, dim=1).values
        self.floor = self.lows[:, -1]

    def best(
        self, queries: npt.NDArray[np.float32], vectors: Stack
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Scores whoever is left in full, and sorts."""
        rows = np.full((len(queries), self.k), -1, np.int64)
        scores = np.full((len(queries), self.k), -np.inf, np.float32)
        if not self.queries:
            return rows, scores
        query, row, high = (np.concatenate(part) for part in (self.queries, self.rows, self.highs))
        alive = high >= self.floor.numpy()[query]
        query, row = query[alive], row[alive]
        order = np.lexsort((row, query))
        query, row = query[order], row[order]
        starts = np.searchsorted(query, np.arange(len(queries) + 1))
        wide = queries.astype(np.float64)
        for one in range(len(queries)):
            own = row[starts[one] : starts[one + 1]]
            # One row at a time and not by BLAS: equal rows get equal scores
            value = np.einsum("nk,k->n", vectors.take(own).astype(np.float64), wide[one])
            if self.bonus is not None:
                value += self.bonus[own]
            best = np.argsort(-value, kind="stable")[: self.k]
            rows[one, : len(best)], scores[one, : len(best)] = own[best], value[best]
        return rows, scores


def _tensor(array: Vectors) -> torch.Tensor:
    """The array as a tensor, without a copy where it is memory-mapped read-only.

    It is only read.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.require(array, np.float32, ["C", "A"]))


@lru_cache
def _numpy_is_faster() -> bool:
    """Which of the two multiplies float32 matrices faster on this CPU.

    They come with different BLAS libraries.
    """
    left, right = torch.ones(2048, 512), torch.ones(256, 512)
    out = torch.empty(2048, 256)
    ways = {
        False: lambda: torch.mm(left, right.T, out=out),
        True: lambda: np.matmul(left.numpy(), right.numpy().T, out=out.numpy()),
    }
    seconds = {}
    for way, product in ways.items():
        product()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        seconds[way] = min(times)
    return seconds[True] < seconds[False]


@lru_cache
def _fast_dtype() -> torch.dtype:
    return resolve_dtype("auto", torch.device("cpu"))

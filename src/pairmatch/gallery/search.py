"""Exact search: the best candidates of many queries by inner product.

The result is provably the same as scoring all candidates and sorting. On CPUs with bfloat16
instructions, all candidates are scored in bfloat16, at twice the speed. The rounding error of each
score is bounded by the lengths of what rounding removed (Cauchy-Schwarz inequality), so that the
candidates that may be among the first k are kept and scored again in full. On other CPUs the same
is done with float32.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch

from pairmatch.core.arrays import Ints, Vectors, check_count
from pairmatch.core.devices import resolve_dtype
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery.shortlist import Shortlist, Stack

_CHUNK_ROWS = 16384
_CHUNK_QUERIES = 1024
_GATHERED_SHARE = 0.5  # below this share of eligible rows, they are copied together first
_UNIT = {  # relative error of rounding
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
    torch.float32: 2.0**-24,
}


def top_k(
    queries: Vectors,
    vectors: Vectors | Sequence[Vectors],
    k: int,
    *,
    rows: Ints | None = None,
    excluded: Sequence[Ints] | None = None,
    bonus: Vectors | None = None,
    longest: float | None = None,
) -> tuple[Ints, Vectors]:
    """Finds the k best rows of each query, best first; equal scores in the order of rows.

    Args:
        queries: [Q, K] float32.
        vectors: [N, K] float32, may be memory-mapped; or several arrays, whose row numbers
            continue from one to the next.
        k: Maximum number of candidates per query, at least 1.
        rows: [n] int64, ascending: eligible rows; by default all.
        excluded: Rows that are not eligible, per query.
        bonus: [N] float32, finite: added to the score of each row in all queries.
        longest: Upper bound on the length of vectors, for example 1.0001 if all have unit length;
            by default it is measured.

    Returns:
        [Q, k] int64 rows, −1 if a query has fewer candidates; [Q, k] float32 scores, −inf there.
        Scores are summed in float64 and rounded.

    Raises:
        ConfigurationError: `k` is below 1, or widths differ.
    """
    k = check_count("top_k(k=...)", k)
    arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
    widths = {array.shape[1] if array.ndim == 2 else None for array in [queries, *arrays]}
    if len(widths) > 1 or None in widths or not arrays:
        shown = " and ".join(str(list(array.shape)) for array in [queries, *arrays[:3]])
        raise ConfigurationError(f"Queries and vectors need one width, got shapes {shown}.")
    stack = Stack(arrays)
    best = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    eligible = len(stack) if rows is None else len(rows)
    if not eligible or not len(queries):
        return best, scores
    for start in range(0, len(queries), _CHUNK_QUERIES):
        part = slice(start, min(start + _CHUNK_QUERIES, len(queries)))
        scorer = _Scorer(queries[part], longest, min(_CHUNK_ROWS, len(stack)))
        hidden = None if excluded is None else excluded[part]
        shortlist = Shortlist(len(queries[part]), min(k, len(stack)), bonus)
        _score_all(scorer, stack, rows, hidden, shortlist)
        best[part, : shortlist.k], scores[part, : shortlist.k] = shortlist.best(
            queries[part], stack
        )
    return best, scores


def _score_all(
    scorer: _Scorer,
    stack: Stack,
    rows: Ints | None,
    excluded: Sequence[Ints] | None,
    shortlist: Shortlist,
) -> None:
    """Adds all eligible rows to a shortlist, chunk by chunk."""
    eligible = None
    if rows is not None and len(rows) < _GATHERED_SHARE * len(stack):
        chunks = _gathered(stack, rows)
    else:
        chunks = ((np.arange(s, s + len(part)), part) for s, part in stack.chunks(_CHUNK_ROWS))
        if rows is not None:
            eligible = np.zeros(len(stack), bool)
            eligible[rows] = True
    bonus = shortlist.bonus
    for numbers, part in _small_first(chunks, max(2048, 8 * shortlist.k)):
        score, error = scorer.score(part, None if bonus is None else bonus[numbers])
        if eligible is not None:
            inside = eligible[numbers[0] : numbers[-1] + 1]
            if not inside.all():
                score[torch.from_numpy(~inside)] = -torch.inf
        if excluded is not None:
            _exclude(score, numbers, excluded)
        shortlist.offer(score, numbers, error, scorer.unit)


def _gathered(stack: Stack, rows: Ints) -> Iterator[tuple[Ints, Vectors]]:
    for start in range(0, len(rows), _CHUNK_ROWS):
        numbers = rows[start : start + _CHUNK_ROWS]
        yield numbers, stack.take(numbers)


def _small_first(
    chunks: Iterable[tuple[Ints, Vectors]], rows: int
) -> Iterator[tuple[Ints, Vectors]]:
    """Splits a small part off the first chunk: its k best are a cheap initial floor."""
    for number, (numbers, part) in enumerate(chunks):
        if number == 0 and len(numbers) > 2 * rows:
            yield numbers[:rows], part[:rows]
            numbers = numbers[rows:]
            part = part[rows:]
        yield numbers, part


class _Scorer:
    """Scores chunks of rows in the fastest number format, with a bound on the error."""

    def __init__(self, queries: Vectors, longest: float | None, buffer_rows: int) -> None:
        dtype = _fast_dtype()
        exact = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
        self._queries = exact.to(dtype)
        self._lengths = exact.norm(dim=1)
        self._lost = (exact - self._queries.float()).norm(dim=1)
        self._longest = longest
        # Fresh memory for each chunk would cost as much as scoring it
        self._buffer = torch.empty(buffer_rows, len(queries), dtype=dtype)
        self.unit = _UNIT[dtype]

    def score(self, part: Vectors, bonus: Vectors | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores [n, Q] of rows, valid until the next call, and the largest error [Q] of each."""
        block = _tensor(part)
        dtype = self._queries.dtype
        added = None
        if bonus is not None:
            added = torch.from_numpy(np.ascontiguousarray(bonus, np.float32))
        score = self._product(block.to(dtype), added)
        # |q·x − q̂·x̂| ≤ ‖q − q̂‖‖x‖ + ‖q̂‖‖x − x̂‖, plus the rounding of sums; the rounding of the
        # score itself is its unit
        length = float(block.norm(dim=1).max()) if self._longest is None else self._longest
        loss = 0.0 if dtype == torch.float32 else self.unit * length
        error = self._lost * length + (self._lengths + self._lost) * loss
        error = error + block.shape[1] * 2.0**-23 * self._lengths * length
        if added is not None:  # sums round in proportion to their terms, not to the result
            terms = self._lengths * length + added.abs().max()
            error = error + (self.unit + 2.0**-22) * terms
        return score, error

    def _product(self, block: torch.Tensor, bonus: torch.Tensor | None) -> torch.Tensor:
        score = self._buffer[: len(block)]
        if score.dtype == torch.float32 and _numpy_is_faster():
            np.matmul(block.numpy(), self._queries.numpy().T, out=score.numpy())
        else:
            torch.mm(block, self._queries.T, out=score)
        if bonus is None:
            return score
        if score.dtype == torch.float32:
            return score.add_(bonus[:, None])
        return score.float() + bonus[:, None]


def _exclude(score: torch.Tensor, numbers: Ints, excluded: Sequence[Ints]) -> None:
    for query, rows in enumerate(excluded):
        if len(rows):
            places = np.searchsorted(numbers, rows)
            inside = places < len(numbers)
            inside[inside] = numbers[places[inside]] == np.asarray(rows)[inside]
            if inside.any():
                score[torch.from_numpy(places[inside]), query] = -torch.inf


def _tensor(array: Vectors) -> torch.Tensor:
    """The array as a read-only tensor, without a copy if it is memory-mapped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.require(array, np.float32, ["C", "A"]))


@lru_cache
def _numpy_is_faster() -> bool:
    """Whether NumPy multiplies float32 matrices faster than PyTorch on this CPU.

    They come with different BLAS libraries.
    """
    left = torch.ones(2048, 512)
    right = torch.ones(256, 512)
    out = torch.empty(2048, 256)
    products = {
        False: lambda: torch.mm(left, right.T, out=out),
        True: lambda: np.matmul(left.numpy(), right.numpy().T, out=out.numpy()),
    }
    seconds = {}
    for by_numpy, product in products.items():
        product()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        seconds[by_numpy] = min(times)
    return seconds[True] < seconds[False]


@lru_cache
def _fast_dtype() -> torch.dtype:
    return resolve_dtype("auto", torch.device("cpu"))

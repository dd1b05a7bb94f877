"""Exact search: the best candidates of many queries by inner product.

The result is provably the same as scoring all candidates and sorting. On CPUs with bfloat16
instructions, all candidates are scored in bfloat16, at twice the speed. The rounding error of each
score is bounded by the lengths of what rounding removed (Cauchy-Schwarz inequality), so that the
candidates that may be among the first k are kept and scored again in full. On other CPUs the same
is done with float32, and where torch is not installed, by NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from pairmatch.core.arrays import Ints, Vectors, check_count
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery.shortlist import Stack, rank_exactly

_CHUNK_ROWS = 16384
_CHUNK_QUERIES = 1024
_GATHERED_SHARE = 0.5  # below this share of eligible rows, they are copied together first


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
        kernel = _kernel()
        scorer = kernel.Scorer(queries[part], longest, min(_CHUNK_ROWS, len(stack)))
        hidden = None if excluded is None else excluded[part]
        shortlist = kernel.Shortlist(len(queries[part]), min(k, len(stack)), bonus)
        _score_all(scorer, stack, rows, hidden, shortlist)
        best[part, : shortlist.k], scores[part, : shortlist.k] = rank_exactly(
            queries[part], stack, shortlist.k, bonus, shortlist.candidates()
        )
    return best, scores


def _score_all(
    scorer: Any,
    stack: Stack,
    rows: Ints | None,
    excluded: Sequence[Ints] | None,
    shortlist: Any,
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
                scorer.hide(score, ~inside)
        if excluded is not None:
            _exclude(scorer, score, numbers, excluded)
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


def _exclude(scorer: Any, score: Any, numbers: Ints, excluded: Sequence[Ints]) -> None:
    for query, rows in enumerate(excluded):
        if len(rows):
            places = np.searchsorted(numbers, rows)
            inside = places < len(numbers)
            inside[inside] = numbers[places[inside]] == np.asarray(rows)[inside]
            if inside.any():
                scorer.hide(score, places[inside], query)


@lru_cache
def _kernel() -> ModuleType:
    """What computes the scores: torch if it is installed, else NumPy."""
    try:
        from pairmatch.gallery import torch_kernel
    except ImportError:
        from pairmatch.gallery import numpy_kernel

        return numpy_kernel
    return torch_kernel

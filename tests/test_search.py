"""Exact search matches plain NumPy for all filters, widths, ties and number formats."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pairmatch.gallery.search as search
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery import numpy_kernel, torch_kernel
from pairmatch.gallery.search import top_k


def best_rows(queries, vectors, k, rows, excluded, bonus=None):
    """Scores all rows in float64 and sorts them stably."""
    best = np.full((len(queries), k), -1)
    for number, query in enumerate(queries.astype(np.float64)):
        scores = np.einsum("nk,k->n", vectors.astype(np.float64), query)
        if bonus is not None:
            scores += bonus
        allowed = np.zeros(len(vectors), bool)
        allowed[rows] = True
        allowed[excluded[number]] = False
        order = [row for row in np.argsort(-scores, kind="stable") if allowed[row]][:k]
        best[number, : len(order)] = order
    return best


def use_kernel(patch, number_format):
    """Makes searches compute in a number format of torch, or without torch."""
    if number_format == "numpy":
        patch.setattr(search, "_kernel", lambda: numpy_kernel)
    else:
        patch.setattr(torch_kernel, "_fast_dtype", lambda: number_format)


FORMATS = [torch.float32, torch.bfloat16, "numpy"]


@pytest.fixture(params=FORMATS, ids=["float32", "bfloat16", "numpy"])
def number_format(request, monkeypatch):
    use_kernel(monkeypatch, request.param)
    monkeypatch.setattr(search, "_CHUNK_ROWS", 128)
    return request.param


@settings(deadline=None, max_examples=60)
@given(
    people=st.integers(1, 400),
    width=st.integers(1, 40),
    k=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.02, 0.3, 0.8, 1.0]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    with_bonus=st.booleans(),
    pieces=st.integers(1, 4),
    seed=st.integers(0, 9),
)
@pytest.mark.parametrize("dtype", FORMATS)
def test_search_matches_plain_sorting(
    dtype, people, width, k, share, scale, with_bonus, pieces, seed
):
    with pytest.MonkeyPatch.context() as patch:
        use_kernel(patch, dtype)
        patch.setattr(search, "_CHUNK_ROWS", 128)
        rng = np.random.default_rng(seed)
        vectors = (scale * rng.normal(size=(people, width))).astype(np.float32)
        # Equal rows: the first row comes first
        vectors[rng.integers(0, people, people // 3)] = vectors[0]
        queries = rng.normal(size=(5, width)).astype(np.float32)
        bonus = scale * rng.normal(size=people).astype(np.float32) if with_bonus else None
        rows = np.sort(rng.choice(people, int(share * people), replace=False))
        excluded = [
            np.sort(rng.choice(people, min(people, q * 3), replace=False)) for q in range(5)
        ]
        arrays = np.array_split(vectors, pieces)
        best, scores = top_k(queries, arrays, k, rows=rows, excluded=excluded, bonus=bonus)
        expected = best_rows(queries, vectors, k, rows, excluded, bonus)
        np.testing.assert_array_equal(best, expected)
        exact = np.einsum("qkw,qw->qk", vectors[best].astype(float), queries.astype(float))
        if bonus is not None:
            exact += bonus[best]
        filled = best >= 0
        np.testing.assert_allclose(scores[filled], exact[filled], rtol=1e-6, atol=1e-30)
        assert np.isneginf(scores[~filled]).all()


def test_near_ties_in_bfloat16_are_ordered_exactly(number_format):
    """Scores that are equal in bfloat16 are still ordered exactly."""
    rng = np.random.default_rng(0)
    base = unit_rows(rng.normal(size=(1, 64)))
    vectors = unit_rows(base + 1e-4 * rng.normal(size=(2000, 64)))
    queries = unit_rows(base + 1e-3 * rng.normal(size=(3, 64)))
    best, _ = top_k(queries, vectors, 20)
    expected = best_rows(queries, vectors, 20, np.arange(2000), [[]] * 3)
    np.testing.assert_array_equal(best, expected)


def test_memory_mapped_vectors_can_be_searched(number_format, tmp_path):
    vectors = unit_rows(np.random.default_rng(1).normal(size=(500, 16)))
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    best, _ = top_k(vectors[:4], mapped, 1)
    np.testing.assert_array_equal(best[:, 0], range(4))


def test_invalid_arguments_are_errors():
    vectors = np.zeros((2, 3), np.float32)
    with pytest.raises(ConfigurationError, match=r"`top_k\(k=...\)` must be at least 1, got 0"):
        top_k(vectors, vectors, 0)
    with pytest.raises(ConfigurationError, match=r"one width, got shapes \[2, 3\] and \[2, 4\]"):
        top_k(vectors, np.zeros((2, 4), np.float32), 1)
    rows, scores = top_k(vectors, vectors, 2, rows=np.empty(0, np.int64))
    assert (rows == -1).all()
    assert np.isneginf(scores).all()

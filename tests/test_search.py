"""Exact search is plain NumPy, whatever the filter, the width, the ties and the number format."""

import numpy as np
import pairmatch.gallery.search as search
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery.search import top_k


def plain(queries, vectors, k, rows, excluded):
    """Everybody scored in float64, stably sorted."""
    found = np.full((len(queries), k), -1)
    for number, query in enumerate(queries.astype(np.float64)):
        scores = np.einsum("nk,k->n", vectors.astype(np.float64), query)
        allowed = np.zeros(len(vectors), bool)
        allowed[rows] = True
        allowed[excluded[number]] = False
        order = [row for row in np.argsort(-scores, kind="stable") if allowed[row]][:k]
        found[number, : len(order)] = order
    return found


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def number_format(request, monkeypatch):
    monkeypatch.setattr(search, "_fast_dtype", lambda: request.param)
    monkeypatch.setattr(search, "_CHUNK_ROWS", 128)
    return request.param


@settings(deadline=None, max_examples=60)
@given(
    people=st.integers(1, 400),
    width=st.integers(1, 40),
    k=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.02, 0.3, 0.8, 1.0]),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 9),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_search_is_plain_sorting(dtype, people, width, k, share, scale, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_fast_dtype", lambda: dtype)
        patch.setattr(search, "_CHUNK_ROWS", 128)
        rng = np.random.default_rng(seed)
        vectors = (scale * rng.normal(size=(people, width))).astype(np.float32)
        vectors[rng.integers(0, people, people // 3)] = vectors[
            0
        ]  # equals: the first row comes first
        queries = rng.normal(size=(5, width)).astype(np.float32)
        rows = np.sort(rng.choice(people, int(share * people), replace=False))
        excluded = [
            np.sort(rng.choice(people, min(people, q * 3), replace=False)) for q in range(5)
        ]
        found, scores = top_k(queries, vectors, k, rows=rows, excluded=excluded)
        np.testing.assert_array_equal(found, plain(queries, vectors, k, rows, excluded))
        exact = np.einsum("qkw,qw->qk", vectors[found].astype(float), queries.astype(float))
        there = found >= 0
        np.testing.assert_allclose(scores[there], exact[there], rtol=1e-6, atol=1e-30)
        assert np.isneginf(scores[~there]).all()


def test_near_ties_in_bfloat16_are_told_apart(number_format):
    """Scores that differ by less than bfloat16 can hold are still ordered as they are."""
    rng = np.random.default_rng(0)
    base = unit_rows(rng.normal(size=(1, 64)))
    vectors = unit_rows(base + 1e-4 * rng.normal(size=(2000, 64)))
    queries = unit_rows(base + 1e-3 * rng.normal(size=(3, 64)))
    found, _ = top_k(queries, vectors, 20)
    everyone = np.arange(2000)
    np.testing.assert_array_equal(found, plain(queries, vectors, 20, everyone, [[]] * 3))


def test_memory_mapped_vectors_are_searched(number_format, tmp_path):
    vectors = unit_rows(np.random.default_rng(1).normal(size=(500, 16)))
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    found, _ = top_k(vectors[:4], mapped, 1)
    np.testing.assert_array_equal(found[:, 0], range(4))


def test_what_cannot_be_searched_is_said():
    some = np.zeros((2, 3), np.float32)
    with pytest.raises(ConfigurationError, match=r"`top_k\(k=...\)` must be at least 1, got 0"):
        top_k(some, some, 0)
    with pytest.raises(ConfigurationError, match=r"one width, got shapes \[2, 3\] and \[2, 4\]"):
        top_k(some, np.zeros((2, 4), np.float32), 1)
    rows, scores = top_k(some, some, 2, rows=np.empty(0, np.int64))
    assert (rows == -1).all()
    assert np.isneginf(scores).all()

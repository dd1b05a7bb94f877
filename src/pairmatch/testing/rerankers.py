"""The conformance check for re-rankers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from pairmatch.core.arrays import Floats
from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.interfaces import Reranker
from pairmatch.core.types import Profile, Side
from pairmatch.testing.contract import check_stored_arguments

_SIDES: tuple[Side, Side] = ("a", "b")
_QUERIES = 6
_CANDIDATES = 8
_LISTED = 4
_TRAITS = 5


def check_reranker(reranker: Reranker) -> None:
    """Checks a re-ranker on small random lists, of both directions.

    `fit` must return a re-ranker that scores pairs equally for equal seeds, and leave the one that
    it was called on unchanged, and the lists too: those of a fold are used again. `score` must
    return one finite number per pair, whatever other pairs there are. Another instance must score
    equally `with_state` of the fitted one, whose `state` must be tensors.

    Raises:
        AssertionError: A check fails.
    """
    name = type(reranker).__name__
    check_stored_arguments(reranker)
    assert isinstance(reranker.top, int), f"{name}.top must be a whole number"
    assert reranker.top >= 1, f"{name}.top must be at least 1"
    train = [_lists(side, with_profiles=reranker.needs_profiles) for side in _SIDES]
    before = {key: value.clone() for key, value in reranker.state().items()}
    lists = [_arrays(batch) for batch in train]
    fitted, again = reranker.fit(train, seed=1), reranker.fit(train, seed=1)
    assert isinstance(fitted, Reranker), f"{name}.fit must return a re-ranker, got {fitted!r}"
    assert _equal(before, reranker.state()), (
        f"{name}.fit must return a new re-ranker and leave the one that it is called on unchanged"
    )
    restored = reranker.with_state(fitted.state())
    for batch in train:
        pairs = replace(batch, is_partner=None)
        scores = _score(name, fitted, pairs)
        assert np.allclose(scores, _score(name, again, pairs), atol=1e-6), (
            f"{name}: equal seeds return different scores"
        )
        assert np.allclose(scores, _score(name, restored, pairs), atol=1e-6), (
            f"{name}: `with_state(state())` does not restore the scores"
        )
        for rows in pairs.lists():
            part = replace(pairs, rows=pairs.rows[rows], scores=pairs.scores[rows])
            assert np.allclose(scores[rows], _score(name, fitted, part), atol=1e-4), (
                f"{name}: the score of a pair depends on other pairs"
            )
    for batch, arrays in zip(train, lists, strict=True):
        now = _arrays(batch)
        changed = [key for key in arrays if not np.array_equal(now[key], arrays[key])]
        assert not changed, f"{name} changes the {', '.join(changed)} that it is given"


def _arrays(pairs: CandidatePairs) -> dict[str, np.ndarray]:
    """Copies of all arrays."""
    values = {field.name: getattr(pairs, field.name) for field in fields(pairs)}
    return {key: value.copy() for key, value in values.items() if isinstance(value, np.ndarray)}


def _score(name: str, reranker: Reranker, pairs: CandidatePairs) -> Floats:
    scores = np.asarray(reranker.score(pairs))
    assert scores.shape == (len(pairs),), (
        f"{name}.score must return one number per pair, [{len(pairs)}], got {list(scores.shape)}"
    )
    assert np.isfinite(scores).all(), f"{name}.score returned values that are not finite"
    return scores


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items()
    )


def _lists(side: Side, *, with_profiles: bool) -> CandidatePairs:
    """Random lists with one partner each."""
    rng = np.random.default_rng(ord(side))
    chosen = [
        np.sort(rng.choice(_CANDIDATES, _LISTED, replace=False)).tolist() for _ in range(_QUERIES)
    ]
    rows = [(query, one) for query, people in enumerate(chosen) for one in people]
    partners = np.zeros((_QUERIES, _LISTED), bool)
    partners[np.arange(_QUERIES), rng.integers(0, _LISTED, _QUERIES)] = True
    scores = -np.sort(-rng.normal(size=(_QUERIES, _LISTED)), axis=1)
    people = [
        [
            Profile(f"{kind}{number}", text=f"Person {number} likes {word} and tea.")
            for number, word in enumerate(rng.permutation(["hills", "films", "soup", "chess"] * 2))
        ]
        for kind in ("query", "candidate")
    ]
    return CandidatePairs(
        side,
        rng.normal(size=(_QUERIES, _TRAITS)).astype(np.float32),
        rng.normal(size=(_CANDIDATES, _TRAITS)).astype(np.float32),
        np.abs(rng.normal(size=(_CANDIDATES, 2))).astype(np.float32),
        np.array(rows, np.int64),
        scores.ravel().astype(np.float32),
        people[0][:_QUERIES] if with_profiles else None,
        people[1] if with_profiles else None,
        partners.ravel(),
    )

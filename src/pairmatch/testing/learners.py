"""The conformance check for learners."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import PartError
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Side
from pairmatch.learning.heads import build_head, describe_head
from pairmatch.testing.contract import check_stored_arguments

_SIDES: tuple[Side, Side] = ("a", "b")
_PAIRS = 24
_DIM = 6


def check_learner(learner: Learner) -> None:
    """Checks a learner on small random pairs, two-sided and one-sided.

    `fit` must return a `FittedHead` in evaluation mode, equal for equal seeds, and leave its
    arguments unchanged. The head must embed both sides as float32 vectors of unit length (or zero),
    one person at a time or together, and a registered head must come back from its name, options
    and weights.

    Raises:
        AssertionError: A check fails.
    """
    name = type(learner).__name__
    check_stored_arguments(learner)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(_PAIRS, _DIM))
    b = rng.normal(size=(_PAIRS, _DIM))
    new = rng.normal(size=(5, _DIM)).astype(np.float32)
    rows = np.arange(_PAIRS)
    one_sided = np.stack([rows, rows + _PAIRS], axis=1)
    for train in (
        PairedFeatures.of(a, b),
        PairedFeatures.of(np.concatenate([a, b]), matches=one_sided),
    ):
        head = _fit(learner, train)
        again = _fit(learner, train)
        for side in _SIDES:
            vectors = _embed(name, head, new, side)
            assert np.array_equal(vectors, _embed(name, again, new, side)), (
                f"{name}: equal seeds return different heads"
            )
            single = np.concatenate([_embed(name, head, row[None], side) for row in new])
            assert np.allclose(single, vectors, atol=1e-5), (
                f"{name}: a person's embedding depends on the rest of the batch"
            )
        _check_restored(name, head, new)
    whole = PairedFeatures.of(a, b)
    train, validation = (whole.take(part) for part in whole.parts([18, 6], seed=0))
    _fit(learner, train, validation)


def _fit(
    learner: Learner, train: PairedFeatures, validation: PairedFeatures | None = None
) -> ProjectionHead:
    """Fits with a fixed seed; checks the result and that the pairs were not modified."""
    name = type(learner).__name__
    before = [*_copies(train), *_copies(validation)]
    fitted = learner.fit(train, validation, seed=1)
    after = [*_copies(train), *_copies(validation)]
    assert all(map(np.array_equal, before, after)), f"{name}.fit modifies its arguments"
    assert isinstance(fitted, FittedHead), (
        f"{name}.fit must return a FittedHead, got {type(fitted).__name__}"
    )
    assert isinstance(fitted.head, ProjectionHead), (
        f"{name}.fit must return a ProjectionHead, got {type(fitted.head).__name__}"
    )
    assert not any(module.training for module in fitted.head.modules()), (
        f"{name}.fit must return a head in evaluation mode: call head.eval()"
    )
    assert all(isinstance(row, Mapping) for row in fitted.history), (
        f"{name}: history must hold one mapping per epoch"
    )
    assert all(isinstance(note, str) for note in fitted.notes), f"{name}: notes must be strings"
    return fitted.head


def _copies(data: PairedFeatures | None) -> list[np.ndarray]:
    if data is None:
        return []
    arrays = (data.a, data.b, data.decisions.pairs, data.decision_components)
    return [array.copy() for array in arrays if array is not None]


def _embed(name: str, head: ProjectionHead, features: Vectors, side: Side) -> Vectors:
    """Embeds people; checks shape, dtype and length of the result."""
    with torch.inference_mode():
        z = head.project(torch.from_numpy(features.copy()), side)
    assert z.dtype == torch.float32, f"{name}: the head must return float32, got {z.dtype}"
    assert z.ndim == 2, f"{name}: the head must return [people, width], got {list(z.shape)}"
    assert len(z) == len(features), (
        f"{name}: the head must return one vector per person: {len(features)}, got {len(z)}"
    )
    assert z.shape[1] == head.width, (
        f"{name}: the width of the head is {head.width}, but it projects side {side} to "
        f"{z.shape[1]}"
    )
    original = features.copy()
    vectors = head.embed(features, side)
    assert np.array_equal(original, features), f"{name}: embed modifies its argument"
    assert vectors.dtype == np.float32, f"{name}: embed must return float32, got {vectors.dtype}"
    assert vectors.shape == tuple(z.shape), (
        f"{name}: embed must return {list(z.shape)}, got {list(vectors.shape)}"
    )
    lengths = np.linalg.norm(vectors, axis=1)
    assert (np.isclose(lengths, 1, atol=1e-4) | (lengths == 0)).all(), (
        f"{name}: embeddings must have unit length, got {lengths}"
    )
    return vectors


def _check_restored(name: str, head: ProjectionHead, new: Vectors) -> None:
    """Checks that a registered head can be rebuilt from its name, options and weights."""
    try:
        spec = describe_head(head)
    except PartError:
        return  # not registered: it can be compared, but not saved
    restored = build_head(spec, dim=_DIM).eval()
    restored.load_state_dict(head.state_dict())
    for side in _SIDES:
        assert np.array_equal(restored.embed(new, side), head.embed(new, side)), (
            f"{name}: the head differs after it is rebuilt from {spec} and its state_dict()"
        )

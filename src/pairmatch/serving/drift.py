"""Whether the scores of a service are distributed as those that were calibrated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.types import Side
from pairmatch.gallery import Gallery
from pairmatch.matcher.probabilities import Probabilities

_SAMPLE = 256  # people per side


def score_caveats(
    galleries: Mapping[Side, Gallery], probabilities: Probabilities | None
) -> list[str]:
    """Why probabilities may not hold for the people of two galleries, or of one among themselves.

    Scores of people drawn at random are compared with those at calibration. Nothing is kept of
    them. A single gallery of candidates of one side has no query people to compare.

    Args:
        galleries: Galleries by side; a one-sided one under both.
        probabilities: Calibration of the matcher; None if it has none.
    """
    if probabilities is None or probabilities.scores is None or len(galleries) < 2:
        return []
    queries, candidates = _sample(galleries["a"], 0), _sample(galleries["b"], 1)
    if queries is None or candidates is None:
        return []
    counts = probabilities.scores.count((queries @ candidates.T).ravel().tolist())
    return probabilities.shift(counts, min(len(queries), len(candidates)))


def _sample(gallery: Gallery, seed: int) -> Vectors | None:
    """Embeddings of some people, drawn at random."""
    ids = gallery.ids
    if not ids:
        return None
    rows = np.random.default_rng(seed).choice(len(ids), min(len(ids), _SAMPLE), replace=False)
    entries = gallery.entries([ids[row] for row in rows])
    return np.stack([vector for _, vector in entries.values()]) if entries else None

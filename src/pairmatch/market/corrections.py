"""Hubness corrections: one bonus per candidate, computed from queries of training people.

They are cheap alternatives to balancing. Both penalize candidates for their average similarity to a
bank of queries, so that hubs no longer appear in every list. The bonus is added to the score, like
`Balance.bonus_b`.
"""

from __future__ import annotations

import numpy as np
import torch

from pairmatch.core.arrays import Floats, Vectors, check_positive, check_vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery.search import top_k

_ROWS = 1024


def csls(candidates: Floats, bank: Floats, *, neighbors: int = 10) -> Vectors:
    """Cross-domain similarity local scaling (Conneau et al. 2018, eq. 7).

    Returns −½ times the mean score of a candidate's nearest bank rows. For a given query, 2 s(x, y)
    − r(x) − r(y) ranks candidates as s(x, y) − r(y) / 2 does.

    Args:
        candidates: [M, K] unit length.
        bank: [Q, K] unit length, queries of *training* people of the other side, never of test
            people.
        neighbors: Number of nearest bank rows to average, from 1 to Q.

    Returns:
        [M] float32.

    Raises:
        ConfigurationError: `neighbors` is out of range, or shapes do not match.
    """
    _check(candidates, bank)
    is_whole = isinstance(neighbors, int | np.integer) and not isinstance(neighbors, bool)
    if not is_whole or not 1 <= neighbors <= len(bank):
        raise ConfigurationError(
            f"`csls(neighbors=...)` must be from 1 to the size of the bank, {len(bank)}; got "
            f"{neighbors}."
        )
    _, scores = top_k(np.asarray(candidates, np.float32), np.asarray(bank, np.float32), neighbors)
    return (-scores.mean(1) / 2).astype(np.float32)


def inverted_softmax(candidates: Floats, bank: Floats, *, temperature: float = 0.1) -> Vectors:
    """Inverted softmax (Smith et al. 2017, eq. 8).

    Returns −τ times the logarithm of the mean of exp(score / τ) over the bank.

    Args:
        candidates: [M, K] unit length.
        bank: [Q, K] unit length, queries of *training* people of the other side, never of test
            people.
        temperature: Temperature τ > 0.

    Returns:
        [M] float32.

    Raises:
        ConfigurationError: `temperature` is not above 0, or shapes do not match.
    """
    _check(candidates, bank)
    check_positive("inverted_softmax(temperature=...)", temperature)
    queries = torch.from_numpy(np.ascontiguousarray(bank, np.float32))
    rows = torch.from_numpy(np.ascontiguousarray(candidates, np.float32))
    parts = [
        torch.logsumexp(rows[start : start + _ROWS] @ queries.T / temperature, 1)
        for start in range(0, len(rows), _ROWS)
    ]
    bonus: Vectors = (-temperature * (torch.cat(parts) - np.log(len(bank)))).numpy()
    if not np.isfinite(bonus).all():
        raise ConfigurationError(
            f"`inverted_softmax(temperature={temperature})` is out of range for scores of this "
            "size: use a value such as 0.1."
        )
    return bonus


def _check(candidates: Floats, bank: Floats) -> None:
    check_vectors("candidates", candidates)
    check_vectors("bank", bank)
    if candidates.shape[1] != bank.shape[1]:
        raise ConfigurationError(
            "`candidates` and `bank` need the same width, got "
            f"{candidates.shape[1]} and {bank.shape[1]}."
        )

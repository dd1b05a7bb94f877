"""Hubness corrections: one number per candidate, from queries of training people, as cheap alternatives to balancing.

Both take from each candidate what a bank of queries gives them on average, so that those who are
near to everybody no longer stand in everybody's list. Each returns a bonus, to be added to the
score as `Balance.bonus_b` is.
"""

from __future__ import annotations

import numpy as np
import torch

from pairmatch.core.arrays import Floats, check_vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery.search import top_k
from pairmatch.market.balancing import Vectors

_ROWS = 1024


def csls(candidates: Floats, bank: Floats, *, neighbours: int = 10) -> Vectors:
    """Cross-domain similarity local scaling (Conneau et al. 2018, eq. 7): −½ of the mean score of nearest bank rows.

    2 s(x, y) − r(x) − r(y) ranks a query's candidates as s(x, y) − r(y) / 2 does.

    Args:
        candidates: [M, K] unit length.
        bank: [Q, K] unit length: queries of *training* people of the other side, never of those
            tested.
        neighbours: Nearest bank rows that are averaged, at most Q.

    Returns:
        [M] float32.

    Raises:
        ConfigurationError: Too few in the bank, or shapes that do not fit.
    """
    _check(candidates, bank)
    if not 1 <= neighbours <= len(bank):
        raise ConfigurationError(
            f"`csls(neighbours=...)` must be from 1 to the bank's {len(bank)}, got {neighbours}."
        )
    _, scores = top_k(np.asarray(candidates, np.float32), np.asarray(bank, np.float32), neighbours)
    return (-scores.mean(1) / 2).astype(np.float32)


def inverted_softmax(candidates: Floats, bank: Floats, *, temperature: float = 0.1) -> Vectors:
    """Inverted softmax (Smith et al. 2017, eq. 8): −τ log of the mean of exp(score / τ) over the bank.

    Args:
        candidates: [M, K] unit length.
        bank: [Q, K] unit length: queries of *training* people of the other side, never of those
            tested.
        temperature: τ > 0.

    Returns:
        [M] float32.

    Raises:
        ConfigurationError: A temperature that is not above 0, or shapes that do not fit.
    """
    _check(candidates, bank)
    if temperature <= 0:
        raise ConfigurationError(
            f"`inverted_softmax(temperature=...)` must be above 0, got {temperature}."
        )
    queries = torch.from_numpy(np.ascontiguousarray(bank, np.float32))
    rows = torch.from_numpy(np.ascontiguousarray(candidates, np.float32))
    parts = [
        torch.logsumexp(rows[start : start + _ROWS] @ queries.T / temperature, 1)
        for start in range(0, len(rows), _ROWS)
    ]
    return (-temperature * (torch.cat(parts) - np.log(len(bank)))).numpy()


def _check(candidates: Floats, bank: Floats) -> None:
    check_vectors("candidates", candidates)
    check_vectors("bank", bank)
    if candidates.shape[1] != bank.shape[1]:
        raise ConfigurationError(
            f"`candidates` and `bank` need one width, got {candidates.shape[1]} and {bank.shape[1]}."
        )

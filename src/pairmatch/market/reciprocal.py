"""Interest of both sides in one number, and search by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Floats, Ints, check_count, check_vectors
from pairmatch.core.errors import ConfigurationError

How = Literal["product", "harmonic", "min"]
Probability = Callable[[Floats], Floats]
_QUERIES = 64


def reciprocal(there: Floats, back: Floats, how: How = "product") -> Floats:
    """Combines the probabilities of a like in each direction.

    The head of the learner `likes` has log odds of both
    ([`side_vectors`][pairmatch.learning.likes_head.LikesHead.side_vectors]). Other matchers have
    one score for both directions: use two that each learned the likes of one side, and calibrate
    both ([`calibrate`][pairmatch.evaluation.diagnostics.calibration.calibrate]), because raw scores
    of two models are not comparable.

    Args:
        there: […] probabilities in [0, 1] that the query person likes the candidate.
        back: […] probabilities in [0, 1] that the candidate likes the query person.
        how: `product`, the probability of both if they are independent; `harmonic`, their harmonic
            mean, which penalizes one-sided interest less; or `min`, the lower of the two.

    Raises:
        ConfigurationError: Values are not probabilities, or `how` is unknown.
    """
    p = _probabilities(there)
    q = _probabilities(back)
    if p.shape != q.shape and p.ndim and q.ndim:
        raise ConfigurationError(
            f"`reciprocal` needs two arrays of one shape, got {list(p.shape)} and {list(q.shape)}."
        )
    if how == "product":
        return p * q
    if how == "min":
        return np.minimum(p, q)
    if how == "harmonic":
        total = p + q
        return np.divide(2 * p * q, total, out=np.zeros_like(total), where=total > 0)
    raise ConfigurationError(
        f"`reciprocal(how=...)` must be 'product', 'harmonic' or 'min', got {how!r}."
    )


def reciprocal_top_k(
    there: tuple[Floats, Floats],
    back: tuple[Floats, Floats],
    k: int,
    *,
    probability_there: Probability,
    probability_back: Probability,
    how: How = "product",
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Exact search for the k best candidates by both sides' interest.

    Memory is linear in the number of people.

    Args:
        there: Embeddings of queries, [Q, K], and candidates, [M, K], whose inner products score how
            much queries like candidates.
        back: Embeddings of the same queries, [Q, J], and candidates, [M, J], for how much
            candidates like queries.
        k: Number of candidates per query, from 1 to M.
        probability_there: Function from scores of `there` to probabilities, such as
            `Calibration.probability`.
        probability_back: Function from scores of `back` to probabilities.
        how: How to combine the two probabilities; see `reciprocal`.

    Returns:
        [Q, k] int64 rows of candidates and [Q, k] combined probabilities, best first.

    Raises:
        ConfigurationError: `there` and `back` differ in size, or `k` is out of range.
    """
    _check_embeddings(there, back)
    k = check_count("reciprocal_top_k(k=...)", k)
    if k > len(there[1]):
        raise ConfigurationError(
            f"`reciprocal_top_k(k=...)` must be from 1 to {len(there[1])}, got {k}."
        )
    rows = np.empty((len(there[0]), k), np.int64)
    values = np.empty((len(there[0]), k))
    for start in range(0, len(rows), _QUERIES):
        part = slice(start, start + _QUERIES)
        combined = reciprocal(
            probability_there(there[0][part] @ there[1].T),
            probability_back(back[0][part] @ back[1].T),
            how,
        )
        if combined.shape != (len(rows[part]), len(there[1])):
            raise ConfigurationError(
                "`probability_there` and `probability_back` must return one probability per score, "
                f"{[len(rows[part]), len(there[1])]}; got {list(combined.shape)}."
            )
        best = np.argpartition(-combined, k - 1, axis=1)[:, :k]
        best_values = np.take_along_axis(combined, best, 1)
        order = np.lexsort((best, -best_values))
        rows[part] = np.take_along_axis(best, order, 1)
        values[part] = np.take_along_axis(best_values, order, 1)
    return rows, values


def _probabilities(values: Floats) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not ((array >= 0) & (array <= 1)).all():  # NaN is in no range
        raise ConfigurationError(
            "`reciprocal` needs probabilities in [0, 1]: calibrate scores first."
        )
    return array


def _check_embeddings(there: tuple[Floats, Floats], back: tuple[Floats, Floats]) -> None:
    for name, (queries, candidates) in (("there", there), ("back", back)):
        check_vectors(f"{name}[0]", queries)
        check_vectors(f"{name}[1]", candidates)
        if queries.shape[1] != candidates.shape[1]:
            raise ConfigurationError(
                f"Queries and candidates in `{name}` need the same width, got {queries.shape[1]} "
                f"and {candidates.shape[1]}."
            )
    if len(there[0]) != len(back[0]) or len(there[1]) != len(back[1]):
        raise ConfigurationError("`there` and `back` must hold the same people, row by row.")

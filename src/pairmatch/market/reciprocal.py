"""Both sides' interest in one number, and search by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Floats, Ints, check_vectors
from pairmatch.core.errors import ConfigurationError

How = Literal["product", "harmonic", "min"]
Probability = Callable[[Floats], Floats]
_QUERIES = 64


def reciprocal(there: Floats, back: Floats, how: How = "product") -> Floats:
    """Combines the chances that one likes the other and the other the one.

    With one shared head, or one head per side, both directions have one score and there is nothing
    to combine; two matchers that each learned one side's likes differ. Calibrate both first
    ([`calibrate`][pairmatch.evaluation.diagnostics.calibration.calibrate]): raw scores of two
    models do not compare.

    Args:
        there: […] probabilities in [0, 1].
        back: […] the same of the other direction.
        how: `product`: the chance of both where they are independent. `harmonic`: their harmonic
            mean, which punishes one-sided interest less. `min`: the less interested of the two
            alone.

    Raises:
        ConfigurationError: Not probabilities, or an unknown `how`.
    """
    p, q = np.asarray(there, np.float64), np.asarray(back, np.float64)
    if not ((p >= 0) & (p <= 1)).all() or not ((q >= 0) & (q <= 1)).all():
        raise ConfigurationError(
            "`reciprocal` needs probabilities in [0, 1]: calibrate scores first."
        )
    if how == "product":
        return p * q
    if how == "min":
        return np.minimum(p, q)
    if how == "harmonic":
        total = p + q
        return np.divide(2 * p * q, total, out=np.zeros_like(total), where=total > 0)
    raise ConfigurationError(
        f"`reciprocal(how=...)` is 'product', 'harmonic' or 'min', got {how!r}."
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
    """The k best candidates by both sides' interest, exactly; memory is linear in people.

    Args:
        there: [Q, K] of those who ask and [M, K] of candidates, by what those who ask like.
        back: [Q, J] and [M, J] by what candidates like.
        k: Candidates per query, from 1 to M.
        probability_there: From scores to probabilities, such as `Calibration.probability`.
        probability_back: The same for the other direction.
        how: As in `reciprocal`.

    Returns:
        [Q, k] int64 rows of candidates and [Q, k] combined probabilities, best first.
    """
    for name, (queries, candidates) in (("there", there), ("back", back)):
        check_vectors(f"{name}[0]", queries)
        check_vectors(f"{name}[1]", candidates)
    if len(there[0]) != len(back[0]) or len(there[1]) != len(back[1]):
        raise ConfigurationError("`there` and `back` need the same people, row by row.")
    if not 1 <= k <= len(there[1]):
        raise ConfigurationError(
            f"`reciprocal_top_k(k=...)` must be from 1 to {len(there[1])}, got {k}."
        )
    rows = np.empty((len(there[0]), k), np.int64)
    values = np.empty((len(there[0]), k))
    for start in range(0, len(rows), _QUERIES):
        part = slice(start, start + _QUERIES)
        both = reciprocal(
            probability_there(there[0][part] @ there[1].T),
            probability_back(back[0][part] @ back[1].T),
            how,
        )
        best = np.argpartition(-both, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(both, best, 1)
        order = np.lexsort((best, -found))
        rows[part] = np.take_along_axis(best, order, 1)
        values[part] = np.take_along_axis(found, order, 1)
    return rows, values

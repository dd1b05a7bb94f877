"""What a search found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.types import Profile


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best candidates of Q queries, best first.

    Attributes:
        ids: [Q, k] of str; None where a query has fewer candidates.
        scores: [Q, k] float32; −inf there.
        eligible: [Q] int64: candidates that the query chose from.
        excluded_by: Per query, what left nobody: a clause of the rule, `no candidates` or
            `exclusions`; None where somebody is left.
    """

    ids: npt.NDArray[Any]
    scores: npt.NDArray[np.float32]
    eligible: Ints
    excluded_by: tuple[str | None, ...]

    def of(self, query: int) -> list[tuple[str, float]]:
        """The candidates of one query with their scores."""
        return [
            (str(person), float(score))
            for person, score in zip(self.ids[query], self.scores[query], strict=True)
            if person is not None
        ]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A candidate: rank from 1, the profile, and the score, an inner product of embeddings."""

    rank: int
    profile: Profile
    score: float


class Recommendations(list[Recommendation]):
    """Candidates for one person, best first.

    Attributes:
        eligible: How many candidates there were to choose from.
        excluded_by: Where the list is empty, what left nobody: a clause of the rule, `no
            candidates` or `exclusions`.
    """

    def __init__(
        self, found: Iterable[Recommendation], eligible: int, excluded_by: str | None
    ) -> None:
        super().__init__(found)
        self.eligible = eligible
        self.excluded_by = excluded_by

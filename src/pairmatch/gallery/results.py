"""What a search found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.metrics import Ints
from pairmatch.types import Profile


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best candidates of Q queries, best first.

    Attributes:
        ids: [Q, k] of str; None where a query has fewer candidates.
        scores: [Q, k] float32; −inf there.
        eligible: [Q] int64: candidates that the query chose from.
        emptied_by: Per query, what left nobody: a clause of the rule, `no candidates` or `exclusions`; None where
            somebody is left.
    """

    ids: npt.NDArray[Any]
    scores: npt.NDArray[np.float32]
    eligible: Ints
    emptied_by: tuple[str | None, ...]

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
        emptied_by: Where the list is empty, what left nobody: a clause of the rule, `no candidates` or `exclusions`.
    """

    def __init__(self, found: Iterable[Recommendation], eligible: int, emptied_by: str | None) -> None:
        super().__init__(found)
        self.eligible = eligible
        self.emptied_by = emptied_by

"""`CandidatePairs`: query people with some of their candidates, as a re-ranker reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Profile, Side


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The people behind the rows of features, for parts that read photos or text.

    Attributes:
        a: N people of side a.
        b: M people of side b; those of `a` in one-sided sets.
    """

    a: tuple[Profile, ...]
    b: tuple[Profile, ...]

    def take(self, rows_a: Ints, rows_b: Ints) -> People:
        """Some people of each side, by row."""
        return People(
            tuple(self.a[row] for row in rows_a.tolist()),
            tuple(self.b[row] for row in rows_b.tolist()),
        )


@dataclass(frozen=True, slots=True, eq=False)
class CandidatePairs:
    """Pairs of a query person and a candidate, the candidates of each query best first.

    Q query people, M candidates, P pairs. A person appears once, however many pairs they are in.

    **Traits** describe people by R numbers: coordinates along the leading principal components of
    the frozen features, scaled to variance 1, the most important first, as far as the embedding
    tells them. Embeddings themselves are of no use here: each fit of a head has axes of its own,
    so that what is learned from the embeddings of several folds does not hold for the final head.

    Attributes:
        side: Side of the query people; `a` in one-sided sets.
        queries: [Q, R] float32 traits of query people.
        candidates: [M, R] float32 traits of candidates.
        hubness: [M, 2] float32 mean and standard deviation of the first-stage score of each
            candidate with training people of the query side.
        rows: [P, 2] int64 rows of `queries` and of `candidates`, sorted by query; within a query,
            by `scores`.
        scores: [P] float32 first-stage score, the inner product of embeddings.
        query_profiles: Q profiles; None unless the re-ranker needs profiles.
        candidate_profiles: M profiles; likewise.
        is_partner: [P] bool whether the two match; None outside of training.
    """

    side: Side
    queries: Vectors
    candidates: Vectors
    hubness: Vectors
    rows: Ints
    scores: Vectors
    query_profiles: Sequence[Profile] | None = None
    candidate_profiles: Sequence[Profile] | None = None
    is_partner: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.rows)

    @property
    def profiles(self) -> list[tuple[Profile, Profile]]:
        """P profiles of the query person and of the candidate of each pair.

        Raises:
            ConfigurationError: There are none; the class attribute `needs_profiles` asks for them.
        """
        if self.query_profiles is None or self.candidate_profiles is None:
            raise ConfigurationError(
                "These pairs have no profiles: a re-ranker that reads them sets `needs_profiles`."
            )
        return [
            (self.query_profiles[query], self.candidate_profiles[candidate])
            for query, candidate in self.rows.tolist()
        ]

    def lists(self) -> list[slice]:
        """The pairs of each query that has any, as slices of `rows`."""
        if not len(self):
            return []
        starts = np.flatnonzero(np.diff(self.rows[:, 0], prepend=-1))
        ends = np.append(starts[1:], len(self))
        return [slice(*bounds) for bounds in zip(starts.tolist(), ends.tolist(), strict=True)]

"""Results of searches and recommendations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.display import Displayed, Rows
from pairmatch.core.text import printable
from pairmatch.core.types import AttributeValue, Profile


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The best candidates of Q queries, best first.

    Attributes:
        ids: [Q, n] of str; None if a query has fewer candidates. n is k, or the number of people in
            the gallery if that is lower.
        scores: [Q, n] float32; −inf there.
        eligible: [Q] int64: number of candidates that each query chose from.
        excluded_by: For each query without candidates, the filter that removed the last one: a
            clause of the rule, `no candidates` or `exclusions`; None for the other queries.
        attributes: Attributes of the candidates by id, if they were asked for.
    """

    ids: npt.NDArray[Any]
    scores: Vectors
    eligible: Ints
    excluded_by: tuple[str | None, ...]
    attributes: Mapping[str, dict[str, AttributeValue]] = field(default_factory=dict)

    @classmethod
    def empty(cls, queries: int, k: int, excluded_by: str) -> SearchResult:
        """A result in which no query has candidates."""
        return cls(
            ids=np.full((queries, k), None, object),
            scores=np.full((queries, k), -np.inf, np.float32),
            eligible=np.zeros(queries, np.int64),
            excluded_by=(excluded_by,) * queries,
        )

    @property
    def people(self) -> list[str]:
        """Ids of all candidates of all queries, each once."""
        return list(dict.fromkeys(person for person in self.ids.ravel() if person is not None))

    def with_attributes(self, attributes: Mapping[str, dict[str, AttributeValue]]) -> SearchResult:
        """The result with the attributes of its candidates."""
        return dataclasses.replace(self, attributes=attributes)

    def candidates(self, query: int) -> list[tuple[str, float]]:
        """Ids and scores of the candidates of one query, best first."""
        return [
            (str(person), float(score))
            for person, score in zip(self.ids[query], self.scores[query], strict=True)
            if person is not None
        ]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One candidate.

    Attributes:
        rank: From 1.
        profile: The candidate.
        score: Inner product of embeddings.
        probability: Probability of a match given `score`, if the matcher was fitted with validation
            pairs.
        rerank_score: Score by which a re-ranker has ordered the best candidates; None for those
            below them, and without a re-ranker. Scores of different query people are not
            comparable.
    """

    rank: int
    profile: Profile
    score: float
    probability: float | None = None
    rerank_score: float | None = None


class Recommendations(Displayed, list[Recommendation]):
    """Candidates for one person, best first; `print` shows them as a table.

    Args:
        candidates: The ranked candidates.
        eligible: Number of candidates to choose from.
        excluded_by: If there are no candidates, the filter that removed the last one: a clause of
            the rule, `no candidates` or `exclusions`.
        caveats: Why the probabilities may not hold, or do not decide the order; one sentence each.
    """

    def __init__(
        self,
        candidates: Iterable[Recommendation],
        eligible: int,
        excluded_by: str | None,
        *,
        caveats: Iterable[str] = (),
    ) -> None:
        super().__init__(candidates)
        self.eligible = eligible
        self.excluded_by = excluded_by
        self.caveats = tuple(caveats)

    def __repr__(self) -> str:
        people = ", ".join(repr(printable(each.profile.id)) for each in self[:3])
        more = ", …" * (len(self) > 3)
        return f"Recommendations({people}{more}; {len(self)} of {self.eligible})"

    def display(self) -> tuple[Rows, list[str]]:
        """Rank, id, scores and attributes of the candidates; no photos, which would be copied."""
        names = list(dict.fromkeys(name for each in self for name in each.profile.attributes))
        reranked = any(each.rerank_score is not None for each in self)
        rows = [["rank", "id", "score", *["re-ranked"] * reranked, *names]]
        for each in self:
            values = (each.profile.attributes.get(name) for name in names)
            cells = ["" if value is None else str(value) for value in values]
            if reranked:
                cells.insert(0, "" if each.rerank_score is None else f"{each.rerank_score:.3f}")
            rows.append([str(each.rank), each.profile.id, f"{each.score:.3f}", *cells])
        rows = [[printable(cell) for cell in row] for row in rows]
        chosen = f"{len(self)} of {self.eligible} candidates"
        return rows, [chosen if self.excluded_by is None else f"{chosen}: {self.excluded_by}"]

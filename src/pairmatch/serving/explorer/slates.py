"""Slates of one person by several policies, with what speaks for each candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Profile, Side
from pairmatch.gallery import Gallery, Recommendation, Recommendations
from pairmatch.learning.evidence import score_by_evidence
from pairmatch.learning.likes_head import LikesHead
from pairmatch.learning.reranking import reranker_name
from pairmatch.market import balance, reciprocal
from pairmatch.matcher.probabilities import with_probabilities
from pairmatch.serving.explorer.computing import Computed
from pairmatch.serving.explorer.people import Trait, attributes_shown, compared, mean_embedding
from pairmatch.serving.messages import Recommend
from pairmatch.serving.service import Service

#: What a slate is ranked by, in the order of the pages.
POLICIES = ("plain", "reciprocal", "balanced")
#: Candidates that the other policies rank again: the best by score.
MOST_RANKED = 5_000
#: Pairs of people of a market that is balanced in seconds.
MOST_BALANCED = 25_000_000
_LEAST_PART = 0.005


@dataclass(frozen=True, slots=True)
class Question:
    """What a page asks for.

    Attributes:
        person: Id of the query person; empty if none is picked.
        side: Side of the person; None if the id says it.
        k: Number of candidates.
        where: Rule; empty for none.
        mutual: Whether the rule must also hold with the roles swapped.
        policy: What the slate is ranked by.
    """

    person: str = ""
    side: Side | None = None
    k: int = 12
    where: str = ""
    mutual: bool = False
    policy: str = "plain"


@dataclass(frozen=True, slots=True)
class Card:
    """A candidate as it is shown.

    Attributes:
        rank: Rank, from 1.
        id: Id.
        side: Side of the candidate.
        score: Inner product of embeddings.
        probability: Calibrated probability of a match; None if the matcher has none.
        attributes: Names and values.
        more: Number of attributes that are not shown.
        traits: Attributes beside those of the query person.
        parts: Kinds of evidence, and by how much each raises the score above that of an average
            candidate.
        likes: Probabilities that the query person says yes, and that the candidate does; None if
            the matcher does not tell them apart.
    """

    rank: int
    id: str
    side: Side
    score: float
    probability: float | None
    attributes: Sequence[tuple[str, str]]
    more: int
    traits: Sequence[Trait]
    parts: Sequence[tuple[str, float]]
    likes: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Slate:
    """The best candidates for a person.

    Attributes:
        person: Id of the query person.
        side: Side of the query person.
        attributes: Names and values of the query person.
        more: Number of their attributes that are not shown.
        cards: Candidates, best first.
        eligible: Number of candidates to choose from.
        excluded_by: Filter that removed the last candidate.
        caveats: Why probabilities may not hold.
    """

    person: str
    side: Side
    attributes: Sequence[tuple[str, str]]
    more: int
    cards: Sequence[Card]
    eligible: int
    excluded_by: str | None
    caveats: Sequence[str]


class Slates:
    """Makes slates of one service.

    Args:
        service: Matcher and galleries.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.computed = Computed()
        self._head = service.matcher.fitted_head

    def unavailable(self) -> dict[str, str]:
        """Policies that this service does not offer, and why not."""
        reasons = {}
        if not isinstance(self._head, LikesHead):
            reasons["reciprocal"] = (
                "This matcher has one score for both directions. Those of the learner likes have "
                "the probability of a yes of each side."
            )
        sizes = [len(gallery) for gallery in self.service.galleries.values()]
        if self.service.matcher.sides == 1:
            sizes *= 2
        if len(sizes) < 2:
            reasons["balanced"] = "Balancing needs the galleries of both sides."
        elif not all(sizes):
            reasons["balanced"] = "A gallery is empty."
        elif sizes[0] * sizes[1] > MOST_BALANCED:
            reasons["balanced"] = (
                f"Galleries of {sizes[0]:,} and {sizes[1]:,} people are too large to balance while "
                f"you wait: the limit is {MOST_BALANCED:,} pairs. Use `pairmatch slates "
                "--evenness`."
            )
        return reasons

    def slate(self, question: Question) -> Slate:
        """The slate of a person.

        Raises:
            ProblemError: The person is in no gallery.
            PairmatchError: The rule or the policy cannot be used.
            ComputingError: The market is being balanced.
        """
        side, attributes, vector = self.service.stored(question.person, question.side)
        ranking = self.ranked(question, side, vector)
        known, more = attributes_shown(attributes)
        return Slate(
            question.person,
            side,
            known,
            more,
            self._cards(side, attributes, vector, ranking),
            ranking.eligible,
            ranking.excluded_by,
            ranking.caveats,
        )

    def pair(self, person: str, side: Side, partner: str) -> Slate:
        """A person, and one candidate whatever their rank.

        Raises:
            ProblemError: One of the two is in no gallery.
            ComputingError: The average candidate is being computed.
        """
        side, attributes, vector = self.service.stored(person, side)
        target = self.service.candidates_of(side)
        _, other, other_vector = self.service.stored(partner, target)
        score = float(vector @ other_vector)
        ranking = Recommendations(
            [Recommendation(1, Profile(partner, attributes=other), score)], 1, None
        )
        ranking = with_probabilities(ranking, self.service.matcher.probabilities)
        known, more = attributes_shown(attributes)
        cards = self._cards(side, attributes, vector, ranking)
        return Slate(person, side, known, more, cards, 1, None, ())

    def _cards(
        self,
        side: Side,
        attributes: Mapping[str, Any],
        vector: Vectors,
        ranking: Recommendations,
    ) -> list[Card]:
        """Candidates with what speaks for each."""
        target = self.service.candidates_of(side)
        gallery = self.service.galleries[target]
        vectors = self._vectors(gallery, ranking)
        parts = self._parts(vector, vectors, mean_embedding(self.computed, gallery))
        likes = None
        if isinstance(self._head, LikesHead):
            likes = _likes(self._head, vector, vectors, side)
        cards = []
        for row, candidate in enumerate(ranking):
            known, more = attributes_shown(candidate.profile.attributes)
            raised = [(kind, float(values[row])) for kind, values in parts.items()]
            raised = [part for part in raised if abs(part[1]) >= _LEAST_PART]
            card = Card(
                candidate.rank,
                candidate.profile.id,
                target,
                candidate.score,
                candidate.probability,
                known,
                more,
                compared(attributes, candidate.profile.attributes),
                sorted(raised, key=lambda part: -abs(part[1])),
                None if likes is None else (float(likes[0][row]), float(likes[1][row])),
            )
            cards.append(card)
        return cards

    def ranked(self, question: Question, side: Side, vector: Vectors) -> Recommendations:
        """The best candidates by the question's policy."""
        reason = self.unavailable().get(question.policy)
        if reason is not None:
            raise ConfigurationError(reason)
        request = Recommend(
            id=question.person,
            person=None,
            side=side,
            k=question.k,
            where=[question.where] if question.where else [],
            mutual=question.mutual,
        )
        if question.policy == "plain":
            return self.service.recommend(request)
        bonus: Mapping[str, float] = {}
        target = self.service.candidates_of(side)
        if question.policy == "balanced":
            bonus = self.bonuses()[target]
        request = request.model_copy(update={"k": MOST_RANKED})
        ranking = self.service.recommend(request, reranked=False)
        if question.policy == "balanced":
            values = np.array([one.score + bonus.get(one.profile.id, 0.0) for one in ranking])
        else:
            assert isinstance(self._head, LikesHead)
            vectors = self._vectors(self.service.galleries[target], ranking)
            likes = _likes(self._head, vector, vectors, side)
            values = reciprocal(*likes)
        ordered = _reordered(ranking, values, question.k)
        second = self.service.matcher.second
        if second is not None and ordered:
            ordered.caveats += (
                f"The order {question.policy} is one of the first stage: the re-ranker "
                f"{reranker_name(second.reranker)} takes no part in it.",
            )
        return ordered

    def bonuses(self) -> dict[Side, dict[str, float]]:
        """What balancing adds to the score of each candidate, by side and id."""
        return self.computed.get("balance", self._balance)[0]

    def _balance(self) -> dict[Side, dict[str, float]]:
        people = {}
        for side, gallery in self.service.galleries.items():
            chunks = list(gallery.chunks())
            ids = [person for chunk, *_ in chunks for person in chunk]
            people[side] = ids, np.concatenate([vectors for *_, vectors in chunks])
        if self.service.matcher.sides == 1:
            ((side, (ids, vectors)),) = people.items()
            bonus = balance(vectors).bonus_a
            return {side: dict(zip(ids, bonus.tolist(), strict=True))}
        (ids_a, a), (ids_b, b) = people["a"], people["b"]
        balanced = balance(a, b)
        return {
            "a": dict(zip(ids_a, balanced.bonus_a.tolist(), strict=True)),
            "b": dict(zip(ids_b, balanced.bonus_b.tolist(), strict=True)),
        }

    def _vectors(self, gallery: Gallery, ranking: Recommendations) -> Vectors:
        """[N, K] embeddings of candidates; zeros for those who are gone meanwhile."""
        ids = [one.profile.id for one in ranking]
        entries = gallery.entries(ids)
        vectors = np.zeros((len(ids), int(self._head.width)), np.float32)
        for row, person in enumerate(ids):
            if person in entries:
                vectors[row] = entries[person][1]
        return vectors

    def _parts(
        self, query: Vectors, candidates: Vectors, mean: Vectors | None
    ) -> dict[str, Vectors]:
        """By kind of evidence, [N] by how much it raises scores above that of an average one."""
        if mean is None:
            return {}
        average = score_by_evidence(self._head, query, mean[None])
        parts = score_by_evidence(self._head, query, candidates)
        return {kind: scores - average[kind] for kind, scores in parts.items()}


def _likes(
    head: LikesHead, query: Vectors, candidates: Vectors, side: Side
) -> tuple[Vectors, Vectors]:
    """[N] probabilities that the query person says yes, and that the candidates do."""
    other: Side = "b" if side == "a" else "a"
    there, back = (
        expit(head.side_vectors(candidates, one) @ head.side_vectors(query[None], one)[0])
        for one in (side, other)
    )
    return there, back


def _reordered(ranking: Recommendations, values: Any, k: int) -> Recommendations:
    """The best k by other values than the score."""
    order = np.argsort(-np.asarray(values), kind="stable")[:k]
    chosen = [
        dataclasses.replace(ranking[row], rank=rank) for rank, row in enumerate(order.tolist(), 1)
    ]
    return Recommendations(chosen, ranking.eligible, ranking.excluded_by, caveats=ranking.caveats)

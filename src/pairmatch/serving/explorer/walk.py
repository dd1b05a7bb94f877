"""Test pairs in the order of how well their partners rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairmatch.core.arrays import Floats, Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Side
from pairmatch.serving.service import Service

_MOST_PAIRS = 2_000
_LEAST_PAIRS = 20
_MOST_SCORES = 100_000_000
_QUERIES = 64


@dataclass(frozen=True, slots=True)
class RankedPair:
    """A matched pair, and where each is in the ranking of the other.

    Attributes:
        a: Id of the first person.
        b: Id of the second person.
        rank_of_b: Rank of b among all candidates of a, from 1; halves are ties.
        rank_of_a: Rank of a among all candidates of b.
        score: Inner product of embeddings.
    """

    a: str
    b: str
    rank_of_b: float
    rank_of_a: float
    score: float

    @property
    def quality(self) -> float:
        """Mean reciprocal rank of both directions."""
        return (1 / self.rank_of_a + 1 / self.rank_of_b) / 2


@dataclass(frozen=True, slots=True)
class Walk:
    """Test pairs, the best first.

    Attributes:
        pairs: The pairs.
        given: Number of matches in the file.
        missing: Number of matches with a person who is in no gallery.
        candidates: Number of candidates of each direction, those of a first.
    """

    pairs: Sequence[RankedPair]
    given: int
    missing: int
    candidates: tuple[int, int]

    @property
    def median_rank(self) -> float:
        """Median rank of the true partners, both directions."""
        return float(np.median([(pair.rank_of_a, pair.rank_of_b) for pair in self.pairs]))


def walk(service: Service, matches: Sequence[tuple[str, str]]) -> Walk:
    """Ranks the partners of test pairs among all people of the galleries.

    Other partners of the same person are no candidates. Of many pairs, some are drawn at random.

    Raises:
        ConfigurationError: No pair has both people in the galleries, or a gallery is missing.
    """
    sides: tuple[Side, Side] = ("a", "b")
    if service.matcher.sides == 1:
        sides = (next(iter(service.galleries)),) * 2
    if not all(side in service.galleries for side in sides):
        raise ConfigurationError("Test pairs need the galleries of both sides.")
    ids = [service.galleries[side].ids for side in sides]
    rows = [{person: row for row, person in enumerate(people)} for people in ids]
    known = [pair for pair in matches if pair[0] in rows[0] and pair[1] in rows[1]]
    if not known:
        raise ConfigurationError("No test pair has both people in the galleries.")
    missing = len(matches) - len(known)
    limit = min(_MOST_PAIRS, max(_LEAST_PAIRS, _MOST_SCORES // max(map(len, ids))))
    if len(known) > limit:
        chosen = np.random.default_rng(0).choice(len(known), limit, replace=False)
        known = [known[row] for row in np.sort(chosen)]
    vectors = [service.galleries[side].embeddings for side in sides]
    if [len(one) for one in vectors] != [len(people) for people in ids]:
        raise ConfigurationError("The galleries changed meanwhile: try again.")
    positions = np.array([(rows[0][a], rows[1][b]) for a, b in known])
    partners: list[dict[int, set[int]]] = [{}, {}]
    for a, b in matches:
        if a in rows[0] and b in rows[1]:
            partners[0].setdefault(rows[0][a], set()).add(rows[1][b])
            partners[1].setdefault(rows[1][b], set()).add(rows[0][a])
    if sides[0] == sides[1]:  # everyone is their own non-candidate, and a partner in both columns
        for row in set(positions.ravel().tolist()):
            both = {row, *partners[0].get(row, ()), *partners[1].get(row, ())}
            partners[0][row] = partners[1][row] = both
    scores, rank_of_b = _ranks(vectors[0], vectors[1], positions, partners[0])
    _, rank_of_a = _ranks(vectors[1], vectors[0], positions[:, ::-1], partners[1])
    found = [
        RankedPair(a, b, float(rank_of_b[row]), float(rank_of_a[row]), float(scores[row]))
        for row, (a, b) in enumerate(known)
    ]
    found.sort(key=lambda pair: -pair.quality)
    return Walk(found, len(matches), missing, (len(ids[1]), len(ids[0])))


def _ranks(
    queries: Vectors, candidates: Vectors, pairs: np.ndarray, partners: dict[int, set[int]]
) -> tuple[Floats, Floats]:
    """Score of each pair, and rank of the second among the candidates of the first."""
    own = np.empty(len(pairs))
    ranks = np.empty(len(pairs))
    for start in range(0, len(pairs), _QUERIES):
        part = pairs[start : start + _QUERIES]
        scores = queries[part[:, 0]] @ candidates.T
        for row, (query, partner) in enumerate(part.tolist()):
            own[start + row] = score = scores[row, partner]
            scores[row, list(partners.get(query, ()))] = -np.inf
            ahead = int((scores[row] > score).sum())
            tied = int((scores[row] == score).sum())
            ranks[start + row] = 1 + ahead + tied / 2
    return own, ranks

"""Which kinds of evidence a stacked head ranks by, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.learning.stacking import StackedHead

#: By kind of evidence, the words that labels of base learners begin with.
KINDS = {
    "people who are alike in everything": ("whitened", "centered"),
    "people who are alike in what past partners share": ("metric",),
    "what partners of similar people are like": ("cca", "ridge"),
    "how strong traits are, and in which combinations": ("products",),
    "who has many partners": ("popularity", "number of partners"),
    "patterns that the recipe's network found": ("recipe",),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One kind of evidence.

    Attributes:
        kind: What it is, in plain words.
        share: Its share of the variation in the scores, in [0, 1].
        learners: The share of each base learner, by label.
    """

    kind: str
    share: float
    learners: dict[str, float]


def evidence_of(head: ProjectionHead | None) -> tuple[Evidence, ...]:
    """The kinds of evidence that a head ranks by, the largest first; none unless it is stacked."""
    if not isinstance(head, StackedHead):
        return ()
    kinds: dict[str, dict[str, float]] = {}
    for label, share in head.shares.items():
        kinds.setdefault(kind_of(label), {})[label] = share
    evidence = [Evidence(kind, sum(parts.values()), parts) for kind, parts in kinds.items()]
    return tuple(sorted(evidence, key=lambda item: -item.share))


def score_by_evidence(
    head: ProjectionHead | None, query: Vectors, candidates: Vectors
) -> dict[str, Vectors]:
    """By kind of evidence, its part of the scores of one person and candidates.

    The parts of a candidate add up to the score. Empty unless the head is stacked.

    Args:
        head: Head that made the embeddings.
        query: [K] embedding of the person.
        candidates: [N, K] embeddings of the candidates.

    Returns:
        [N] float32 by kind.
    """
    if not isinstance(head, StackedHead):
        return {}
    parts: dict[str, Vectors] = {}
    start = 0
    for label, part in zip(head.parts, head.heads, strict=True):
        columns = slice(start, start + int(part.width))  # type: ignore[arg-type]
        start = columns.stop
        kind = kind_of(label)
        scores = candidates[:, columns] @ query[columns]
        parts[kind] = parts.get(kind, np.zeros(len(candidates), np.float32)) + scores
    return parts


def kind_of(label: str) -> str:
    """The kind of evidence of a base learner; its own label if it is none of those known.

    A learner that reads one block of features has the block's name before a colon.
    """
    learner = label.rpartition(": ")[2]
    return next((kind for kind, words in KINDS.items() if learner.startswith(words)), label)

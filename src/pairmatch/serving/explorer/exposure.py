"""Who is shown too often and who never: how evenly slates are spread over candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Side
from pairmatch.evaluation.diagnostics import Hubness, gini
from pairmatch.gallery import Gallery
from pairmatch.report.plots import Plot, percent
from pairmatch.serving.service import Service

_MOST_QUERIES = 1_000
_LEAST_QUERIES = 50
_MOST_SCORES = 50_000_000
_LISTED = 20
_CURVE_POINTS = 100
_COLORS = {"plain": "ours", "balanced": "frozen"}


@dataclass(frozen=True, slots=True)
class Exposure:
    """How often the candidates of one side are among the top k of people of the other.

    Attributes:
        side: Side of the query people.
        target: Side of the candidates.
        queries: Number of query people, drawn at random.
        people: Number of people that they were drawn from.
        candidates: Number of candidates.
        spreads: Hubness by policy.
        chance: Share of candidates that random lists would never show.
        expected: Mean number of lists per candidate.
        most: Ids that are shown most by score, and in how many lists.
        never: Some ids that are never shown by score, drawn at random.
        plot: Lorenz curves.
    """

    side: Side
    target: Side
    queries: int
    people: int
    candidates: int
    spreads: Mapping[str, Hubness]
    chance: float
    expected: float
    most: Sequence[tuple[str, int]]
    never: Sequence[str]
    plot: Plot


def exposure(
    service: Service, side: Side, k: int, bonus: Mapping[str, float] | None = None
) -> Exposure:
    """Counts in how many slates each candidate is, without rules and exclusions.

    Args:
        service: Matcher and galleries.
        side: Side of the query people.
        k: Length of the slates.
        bonus: What balancing adds to the score of each candidate, by id; None to leave it out.

    Raises:
        ConfigurationError: There are no more than k candidates, or no query people.
    """
    target = service.candidates_of(side)
    asking, shown = service.galleries[side], service.galleries[target]
    people, ids = asking.ids, shown.ids
    if not people or len(ids) <= k:
        raise ConfigurationError(f"Exposure needs query people and more than {k} candidates.")
    limit = min(_MOST_QUERIES, max(_LEAST_QUERIES, _MOST_SCORES // len(ids)))
    rng = np.random.default_rng(0)
    rows = rng.choice(len(people), min(len(people), limit), replace=False)
    entries = asking.entries([people[row] for row in rows])
    queries = np.stack([vector for _, vector in entries.values()])
    hidden = list(entries) if asking is shown else None
    spreads = {"plain": _spread(_counts(shown, queries, ids, k, hidden), k)}
    if bonus is not None:
        values = np.array([bonus.get(person, 0.0) for person in ids], np.float32)
        spreads["balanced"] = _spread(_counts(shown, queries, ids, k, hidden, values), k)
    counts = spreads["plain"].counts
    order = np.argsort(-counts, kind="stable")[:_LISTED]
    unseen = np.flatnonzero(counts == 0)
    unseen = np.sort(rng.choice(unseen, min(len(unseen), _LISTED), replace=False))
    return Exposure(
        side,
        target,
        len(queries),
        len(people),
        len(ids),
        spreads,
        float((1 - k / len(ids)) ** len(queries)),
        len(queries) * k / len(ids),
        [(ids[row], int(counts[row])) for row in order],
        [ids[row] for row in unseen],
        _lorenz(spreads),
    )


def _counts(
    gallery: Gallery,
    queries: np.ndarray,
    ids: Sequence[str],
    k: int,
    hidden: Sequence[str] | None,
    bonus: np.ndarray | None = None,
) -> Ints:
    """[candidates] number of top-k lists that each is in."""
    excluded = None if hidden is None else [[person] for person in hidden]
    result = gallery.search(queries, k, excluded=excluded, bonus=bonus)
    row_of = {person: row for row, person in enumerate(ids)}
    rows = [row_of[person] for person in result.ids.ravel() if person in row_of]
    return np.bincount(np.array(rows, np.int64), minlength=len(ids))


def _spread(counts: Ints, k: int) -> Hubness:
    skewness = float(stats.skew(counts)) if np.ptp(counts) else 0.0
    return Hubness(k, skewness, float((counts == 0).mean()), gini(counts), counts)


def _lorenz(spreads: Mapping[str, Hubness]) -> Plot:
    plot = Plot(
        "Share of recommendations by share of candidates",
        "Candidates are in order, least shown first. The dotted line would be equal exposure.",
        x=("share of candidates", 0, 1),
        y=("share of recommendations", 0, 1),
        in_percent=True,
        x_in_percent=True,
    )
    plot.line("chance", [0, 1], [0, 1])
    words = []
    for policy, spread in spreads.items():
        shares = np.concatenate([[0], np.cumsum(np.sort(spread.counts))]).astype(float)
        shares /= max(shares[-1], 1)
        points = np.unique(np.linspace(0, len(shares) - 1, _CURVE_POINTS).astype(int))
        xs = points / (len(shares) - 1)
        plot.line(_COLORS[policy], xs.tolist(), shares[points].tolist())
        half = shares[len(shares) // 2]
        words.append(f"{policy}: the less shown half has {percent(half)} of recommendations")
    plot.key = [(_COLORS[policy], policy) for policy in spreads] + [("chance", "equal")]
    plot.description = "; ".join(words)
    return plot

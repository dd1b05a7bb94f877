"""Area under the ROC curve (AUC) among pairs that were decided: yes against no."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Floats, Ints, Vectors
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import NO_POOL
from pairmatch.core.types import Target
from pairmatch.evaluation.comparison import paired_test
from pairmatch.evaluation.intervals import expanded_tail
from pairmatch.evaluation.ranks import Doubles
from pairmatch.evaluation.targets import DIRECTION_OF, has_answers

_ROWS = 65_536
_FEWEST_POOLS = 6  # the interval of fewer is too narrow, and no test of fewer can reach p < 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean AUC.

    Attributes:
        value: In [0, 1]; chance is 0.5.
        count: Number of values that are averaged.
        interval: (low, high), by resampling pools, or with fewer than 6 pools the people of both
            sides; None if it was not requested.
        p_value: Two-sided p-value against chance, by the paired randomization test over pools; None
            with fewer than 6. It holds for a head that was fitted once: the test parts of a
            cross-validation share training pairs, which makes it somewhat too small.
    """

    value: float
    count: int
    interval: tuple[float, float] | None = None
    p_value: float | None = None

    def __str__(self) -> str:
        bounds = "" if self.interval is None else " ({:.3f}–{:.3f})".format(*self.interval)
        return f"{self.value:.3f}{bounds}"


@dataclass(frozen=True, slots=True)
class AUC:
    """Probability that a pair with a yes scores above one with a no, ties counting one half.

    Only pairs that were decided are compared, inside the pool: nothing is assumed about people who
    were not shown to each other. Chance is 0.5. Without pools, all pairs form one pool.

    Attributes:
        per_person: Mean over asking people, each counted once per pool: the AUC among the people of
            the pool with whom this person's pairs were decided. For matches, the people of both
            sides ask.
        per_pool: Mean over pools: the AUC among all decided pairs of a pool. Who says yes easily
            counts here, while it cannot change the order of one person's candidates.
        decisions: Number of decided pairs.
    """

    per_person: Estimate
    per_pool: Estimate
    decisions: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return (
            f"AUC of yes against no: {self.per_person} per asking person "
            f"({self.per_person.count}), {self.per_pool} per pool ({self.per_pool.count}); "
            f"{self.decisions} decided pairs; chance 0.5"
        )


@dataclass(frozen=True, slots=True, eq=False)
class ScoredDecisions:
    """Scores of decided pairs, one row per pair and asking person. S rows.

    Attributes:
        direction: [S] int64 side of the asking person: 0 for side a, 1 for side b.
        askers: [S] int64 person: twice the row, plus 1 for people of side b.
        candidates: [S] int64 person.
        yes: [S] bool.
        scores: [S] float32.
        pools: [S] int64; −1 if it is not known.
        block: [S] int64: only scores of one block are compared.
    """

    direction: Ints
    askers: Ints
    candidates: Ints
    yes: npt.NDArray[np.bool_]
    scores: Vectors
    pools: Ints
    block: Ints

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.yes)

    def select(self, rows: npt.NDArray[np.bool_]) -> ScoredDecisions:
        """Some of the rows, by mask."""
        return ScoredDecisions(*(getattr(self, name)[rows] for name in self.__slots__))

    def of_askers(self, chosen: Sequence[npt.NDArray[np.bool_]]) -> ScoredDecisions:
        """The rows of some asking people: for each side, [people] whether a person is chosen."""
        row, side = np.divmod(self.askers, 2)
        kept = np.empty(len(self), bool)
        for number, people in enumerate(chosen):
            kept[side == number] = people[row[side == number]]
        return self.select(kept)

    def in_block(self, block: int) -> ScoredDecisions:
        """The same rows, which are compared with each other only, as those of one fold."""
        return dataclasses.replace(self, block=np.full(len(self), block, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[ScoredDecisions]) -> ScoredDecisions:
        """The rows of several, one after the other."""
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__)
        )


def measure_auc(
    data: PairedFeatures,
    embeddings: tuple[Vectors, Vectors],
    target: Target,
    *,
    asked: Sequence[npt.NDArray[np.bool_]] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> AUC | None:
    """AUC of the decided pairs of a set.

    Args:
        data: People and pairs, as `aim_at` returns them for the target.
        embeddings: [N, K] of side a and [M, K] of side b.
        target: What was asked.
        asked: For each side, [people] whether a person is one of the asking people; None for all.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for the bootstrap.

    Returns:
        None without likes and pools, or if no asking person has both a yes and a no.
    """
    if not has_answers(data):
        return None
    scored = score_decisions(data, *embeddings, target)
    if asked is not None:
        scored = scored.of_askers(asked)
    return summarize_auc(scored, resamples=resamples, confidence=confidence, seed=seed)


def score_decisions(
    data: PairedFeatures,
    e_a: Floats,
    e_b: Floats,
    target: Target = "match",
    *,
    rows: tuple[Ints, Ints] | None = None,
) -> ScoredDecisions:
    """Scores the matches and rejections of a set.

    Args:
        data: People and pairs; for a target other than `match`, as `aim_at` returns them.
        e_a: [N, K] embeddings of side a.
        e_b: [M, K] embeddings of side b, or of the candidates of a one-sided set.
        target: What was asked: `match` asks the people of both sides.
        rows: Numbers of the people of both sides, for people taken from a larger set.
    """
    decided = slice(0, data.ends[1])
    pairs = data.decisions.pairs[decided]
    yes = np.arange(len(pairs)) < data.ends[0]
    pools = np.full(len(pairs), NO_POOL) if data.pools is None else data.pools.pool[decided]
    rows_a, rows_b = rows or (np.arange(len(data.a)), np.arange(len(e_b)))
    people_a = 2 * rows_a[pairs[:, 0]]
    people_b = 2 * rows_b[pairs[:, 1]] + (not data.one_sided)
    there = _scores(e_a, e_b, pairs)
    views = [(people_a, people_b, there)]
    if data.one_sided:
        views.append((people_b, people_a, _scores(e_a, e_b, pairs[:, ::-1])))
    else:
        views.append((people_b, people_a, there))
    chosen = DIRECTION_OF[target]
    return ScoredDecisions.concatenate(
        [
            ScoredDecisions(
                np.full(len(pairs), direction, np.int64),
                askers,
                candidates,
                yes,
                scores,
                pools,
                np.zeros(len(pairs), np.int64),
            )
            for direction, (askers, candidates, scores) in enumerate(views)
            if chosen in (None, direction)
        ]
    )


def summarize_auc(
    scored: ScoredDecisions, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> AUC | None:
    """AUC per asking person and per pool, with intervals.

    The expanded percentile bootstrap (Hesterberg 2015) resamples pools. With fewer than 6, or pairs
    without one, it resamples the people of both sides, and a pair counts as often as the product of
    its people's counts (the pigeonhole bootstrap, Owen 2007).

    Args:
        scored: Scores of decided pairs.
        resamples: Number of bootstrap resamples; 0 for no intervals.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for the bootstrap.

    Returns:
        None if no asking person has both a yes and a no.
    """
    if not len(scored):
        return None
    once = scored.direction == scored.direction.min()
    pool = scored.block * (int(scored.pools.max()) + 2) + scored.pools + 1
    per_pool = _GroupedAUC(pool[once], scored.scores[once], scored.yes[once])
    keys = np.stack([pool, scored.askers], axis=1)
    group = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    per_person = _GroupedAUC(group, scored.scores, scored.yes)
    rows = (np.arange(len(scored)), np.flatnonzero(once))
    parts = (per_person, per_pool)
    values = [part.values(np.ones(len(kept))) for part, kept in zip(parts, rows, strict=True)]
    if any(np.isnan(value).all() for value in values):
        return None
    estimates = [
        Estimate(float(np.nanmean(value)), int(np.isfinite(value).sum())) for value in values
    ]
    labels = [scored.pools[kept[part.first]] for part, kept in zip(parts, rows, strict=True)]
    used = [label[np.isfinite(value)] for label, value in zip(labels, values, strict=True)]
    enough = min(len(np.unique(label)) for label in used) >= _FEWEST_POOLS
    if resamples and enough and (scored.pools != NO_POOL).all():
        estimates = [
            _over_pools(estimate, value, label, resamples, confidence, seed)
            for estimate, value, label in zip(estimates, values, labels, strict=True)
        ]
    elif resamples:
        clusters, drawn = _resample_people(scored, parts, rows, resamples, seed)
        tail = expanded_tail((1 - confidence) / 2, clusters)
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        estimates = [
            dataclasses.replace(estimate, interval=(float(low[part]), float(high[part])))
            for part, estimate in enumerate(estimates)
        ]
    return AUC(estimates[0], estimates[1], int(once.sum()))


def _over_pools(
    estimate: Estimate,
    values: Doubles,
    pools: Ints,
    resamples: int,
    confidence: float,
    seed: int,
) -> Estimate:
    """Interval and test of the mean of values whose pools are independent."""
    usable = np.isfinite(values)
    chance = np.full(int(usable.sum()), 0.5)
    test = paired_test(
        values[usable],
        chance,
        pools[usable],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    interval = (0.5 + test.interval[0], 0.5 + test.interval[1])
    return dataclasses.replace(estimate, interval=interval, p_value=test.p_value)


class _GroupedAUC:
    """Mann–Whitney statistics of groups of scores, for any weights of the scores."""

    def __init__(self, group: Ints, scores: Vectors, yes: npt.NDArray[np.bool_]) -> None:
        self.order = np.lexsort((scores, group))
        group, scores = group[self.order], scores[self.order]
        is_new_group = np.append(True, group[1:] != group[:-1])
        is_new_score = is_new_group | np.append(True, scores[1:] != scores[:-1])
        self.ties = np.flatnonzero(is_new_score)
        self.groups = np.flatnonzero(is_new_group[self.ties])
        self.sizes = np.diff(np.append(self.groups, len(self.ties)))
        self.first = self.order[self.ties[self.groups]]
        self.yes = yes[self.order].astype(np.float64)

    def values(self, weights: Doubles) -> Doubles:
        """[groups] weighted AUC; NaN without a yes or without a no."""
        weights = weights[self.order]
        yes = np.add.reduceat(weights * self.yes, self.ties)
        no = np.add.reduceat(weights * (1 - self.yes), self.ties)
        below = np.cumsum(no) - no
        below -= np.repeat(below[self.groups], self.sizes)
        wins = np.add.reduceat(yes * (below + no / 2), self.groups)
        pairs = np.add.reduceat(yes, self.groups) * np.add.reduceat(no, self.groups)
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _resample_people(
    scored: ScoredDecisions,
    parts: Sequence[_GroupedAUC],
    rows: Sequence[Ints],
    resamples: int,
    seed: int,
) -> tuple[int, Doubles]:
    """People of the smaller side, and [resamples, 2] means when those of both are drawn again."""
    rng = np.random.default_rng(seed)
    people, label = np.unique(
        np.concatenate([scored.askers, scored.candidates]), return_inverse=True
    )
    askers, candidates = label[: len(scored)], label[len(scored) :]
    sides = [np.flatnonzero(people % 2 == side) for side in (0, 1)]
    sides = [side for side in sides if len(side)]
    drawn = np.empty((resamples, 2))
    for row in range(resamples):
        count = np.empty(len(people))
        for side in sides:
            count[side] = rng.multinomial(len(side), np.full(len(side), 1 / len(side)))
        weights = count[askers] * count[candidates]
        for part, (grouped, kept) in enumerate(zip(parts, rows, strict=True)):
            value = grouped.values(weights[kept])
            times = count[askers[kept[grouped.first]]] if part == 0 else np.ones(len(value))
            usable = np.isfinite(value)
            total = times[usable].sum()
            drawn[row, part] = times[usable] @ value[usable] / total if total else np.nan
    return min(map(len, sides)), drawn


def _scores(e_a: Floats, e_b: Floats, pairs: Ints) -> Vectors:
    """[E] float32 inner products of pairs of rows."""
    scores = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _ROWS):
        first, second = pairs[start : start + _ROWS].T
        scores[start : start + _ROWS] = np.einsum("ek,ek->e", e_a[first], e_b[second])
    return scores

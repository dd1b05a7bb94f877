"""Area under the ROC curve (AUC) among pairs that were decided: yes against no."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from pairmatch.core.arrays import Floats, Ints, Vectors
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import NO_POOL
from pairmatch.core.types import Target
from pairmatch.evaluation.comparison import paired_test
from pairmatch.evaluation.grouped_auc import GroupedAUC
from pairmatch.evaluation.intervals import cluster_errors
from pairmatch.evaluation.links import student_interval
from pairmatch.evaluation.targets import DIRECTION_OF, has_answers

_ROWS = 65_536
_SHARED_TRAINING = np.sqrt(2)  # factor of standard errors where test parts teach each other
_ROUNDING = 1e-12  # standard errors of values that differ by rounding only
_FEWEST_POOLS = 6  # the interval of fewer is too narrow, and no test of fewer can reach p < 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean AUC.

    Attributes:
        value: In [0, 1]; chance is 0.5.
        count: Number of values that are averaged.
        interval: (low, high), over pools, or with fewer than 6 pools over the people of both sides;
            None if it was not requested.
        p_value: Two-sided p-value against chance: by the paired randomization test over pools; with
            fewer than 6 pools and in cross-validation, by Student's test. None if no interval was
            requested, or if all values are equal.
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
    """AUC per asking person and per pool, with intervals and tests.

    The expanded percentile bootstrap (Hesterberg 2015) resamples pools. With fewer than 6, or pairs
    without one, intervals and tests are Student's, with the two-way standard errors of
    [`GroupedAUC.error`][pairmatch.evaluation.grouped_auc.GroupedAUC.error] over people.

    With several blocks, the test parts of a cross-validation, standard errors are multiplied by √2,
    and intervals and tests over pools are Student's too. A head that learned noise from pool j
    orders the pairs of pool i by the likeness of their noise, and a head that learned from pool i
    those of pool j by the same likeness: each term is there twice, so that the variance of the sum
    is twice the sum of the variances. The correction of Nadeau and Bengio (2003, "Inference for the
    Generalization Error") comes to the same for many folds.

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
    pool = scored.block * (int(scored.pools.max()) + 2) + scored.pools + 1
    keys = np.stack([pool, scored.askers], axis=1)
    asker_in_pool = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    once = scored.direction == scored.direction.min()
    per_person = _Mean(scored, asker_in_pool, by_asker=True)
    per_pool = _Mean(scored.select(once), pool[once], by_asker=False)
    means = (per_person, per_pool)
    if not all(mean.grouped.usable.any() for mean in means):
        return None
    enough = min(len(np.unique(mean.pools)) for mean in means) >= _FEWEST_POOLS
    over_pools = enough and bool((scored.pools != NO_POOL).all())
    if not resamples:
        of_person, of_pool = (mean.estimate for mean in means)
    elif over_pools and not np.ptp(scored.block):
        of_person, of_pool = (mean.resampled(resamples, confidence, seed) for mean in means)
    else:
        of_person, of_pool = (mean.student(over_pools, confidence) for mean in means)
    return AUC(of_person, of_pool, int(once.sum()))


class _Mean:
    """The mean AUC of groups of rows."""

    def __init__(self, scored: ScoredDecisions, group: Ints, *, by_asker: bool) -> None:
        self.scored = scored
        self.by_asker = by_asker
        self.grouped = GroupedAUC(group, scored.scores, scored.yes)
        self.values = self.grouped.values[self.grouped.usable]
        self.pools = scored.pools[self.grouped.first][self.grouped.usable]

    @property
    def estimate(self) -> Estimate:
        """The mean, without an interval."""
        return Estimate(float(self.values.mean()), len(self.values))

    def resampled(self, resamples: int, confidence: float, seed: int) -> Estimate:
        """Interval and test by resampling pools."""
        test = paired_test(
            self.values,
            np.full(len(self.values), 0.5),
            self.pools,
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        interval = (0.5 + test.interval[0], 0.5 + test.interval[1])
        return dataclasses.replace(self.estimate, interval=interval, p_value=test.p_value)

    def student(self, over_pools: bool, confidence: float) -> Estimate:
        """Student's interval and test, from standard errors over pools or over people."""
        if over_pools:
            errors, clusters = cluster_errors(self.values[:, None], self.pools)
            error, freedom = float(errors[0]), clusters - 1.0
        else:
            people = self.scored.askers, self.scored.candidates
            error, freedom = self.grouped.error(*people, by_asker=self.by_asker)
        if np.ptp(self.scored.block):
            error *= _SHARED_TRAINING
        estimate = self.estimate
        interval = student_interval(estimate.value, error, freedom, confidence)
        p_value = None
        if error > _ROUNDING:
            p_value = 2 * float(student.sf(abs(estimate.value - 0.5) / error, freedom))
        return dataclasses.replace(
            estimate, interval=(max(interval[0], 0.0), min(interval[1], 1.0)), p_value=p_value
        )


def _scores(e_a: Floats, e_b: Floats, pairs: Ints) -> Vectors:
    """[E] float32 inner products of pairs of rows."""
    scores = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _ROWS):
        first, second = pairs[start : start + _ROWS].T
        scores[start : start + _ROWS] = np.einsum("ek,ek->e", e_a[first], e_b[second])
    return scores

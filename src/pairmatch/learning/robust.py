"""The learner `robust`: a metric whose strength is chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import FittedHead, Learner
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.comparison import standard_errors
from pairmatch.evaluation.measuring import measure_head
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.learning.metric import PairMetric, solve_metrics


class Robust(Learner):
    """A metric whose strength is chosen by inner cross-validation on the training pairs.

    Candidates are, from simple to complex, centered cosine, whitened cosine, and metrics of
    increasing strength. The simplest candidate whose MRR is within `tolerance` standard errors of
    the best is used (Breiman et al. 1984), by a paired comparison over people.

    Args:
        strengths: Strengths of the metrics to try, ascending.
        group_weight: Weight of connected people, tried in addition to 0 if pairs are connected
            through groups or people.
        shrinkage: As in `PairMetric`.
        powers: Powers to try, as in `PairMetric`.
        tolerance: Number of standard errors, at least 0; 0 uses the best candidate.
        folds: Number of folds of the inner cross-validation.
        least_pairs: Minimum number of independent groups of pairs to learn from them; with fewer,
            centered cosine is used.
    """

    def __init__(
        self,
        *,
        strengths: Sequence[float] = (0.01, 0.02, 0.04, 0.1, 0.3),
        group_weight: float = 0.3,
        shrinkage: float = 0.9,
        powers: Sequence[float] = (1.0, 0.5),
        tolerance: float = 0.5,
        folds: int = 5,
        least_pairs: int = 20,
    ) -> None:
        for strength, power in product(strengths, powers):
            PairMetric(
                shrinkage=shrinkage, strength=strength, group_weight=group_weight, power=power
            )
        is_ascending = list(strengths) == sorted(set(strengths))
        if not strengths or not is_ascending or strengths[0] <= 0:
            raise ConfigurationError(
                f"`Robust(strengths=...)` must be above 0 and ascending, got {list(strengths)}."
            )
        if not powers or not 0 <= tolerance < math.inf:
            raise ConfigurationError(
                "`Robust(...)`: powers must not be empty and tolerance must be at least 0, got "
                f"{list(powers)}, {tolerance}."
            )
        if folds < 2 or least_pairs < folds:
            raise ConfigurationError(
                "`Robust(...)`: folds must be at least 2 and least_pairs at least folds, got "
                f"{folds}, {least_pairs}."
            )
        self.strengths = tuple(strengths)
        self.group_weight = group_weight
        self.shrinkage = shrinkage
        self.powers = tuple(powers)
        self.tolerance = tolerance
        self.folds = folds
        self.least_pairs = least_pairs

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Chooses by cross-validation among the training pairs, then learns from all of them."""
        independent = train.independent
        if independent < self.least_pairs:
            note = (
                f"Too few pairs to learn from ({independent} independent groups of pairs, at least "
                f"{self.least_pairs} are needed): people are compared by centered features."
            )
            metric = PairMetric(shrinkage=1.0, strength=0.0, power=self.powers[0])
            return FittedHead(metric.fit(train).head, notes=(note,))
        candidates = self._candidates(grouped=2 <= len(np.unique(train.components)) < len(train))
        tables = self._measure(train, candidates, seed)
        scores = [table["reciprocal_rank"] for table in tables]
        chosen = _simplest_of_the_best(scores, tables[0], self.tolerance)
        head = candidates[chosen].fit(train).head
        if candidates[chosen].strength:
            return FittedHead(head)
        learned = [scores[i].mean() for i, metric in enumerate(candidates) if metric.strength]
        kind = "centered" if candidates[chosen].shrinkage == 1 else "whitened"
        note = (
            f"Cross-validation among the {len(train)} training pairs does not show that learning "
            f"from them improves the ranking (MRR {max(learned):.3f} with it, "
            f"{scores[chosen].mean():.3f} without): people are compared by {kind} features."
        )
        return FittedHead(head, notes=(note,))

    def _candidates(self, *, grouped: bool) -> list[PairMetric]:
        """All metrics to try, the simplest first."""
        weights = [0.0, self.group_weight] if grouped and self.group_weight else [0.0]
        options = [
            *product([1.0, self.shrinkage], [0.0], [0.0], self.powers),
            *product([self.shrinkage], self.strengths, weights, self.powers),
        ]
        return [
            PairMetric(shrinkage=shrinkage, strength=strength, group_weight=weight, power=power)
            for shrinkage, strength, weight, power in options
        ]

    def _measure(
        self, train: PairedFeatures, candidates: Sequence[PairMetric], seed: int
    ) -> list[QueryTable]:
        """Held-out ranks of every candidate."""
        tables: list[list[QueryTable]] = [[] for _ in candidates]
        for split in cross_validation_splits(train, repeats=1, folds=self.folds, seed=seed):
            heads = solve_metrics(train.take(split.train), candidates)
            for table, head in zip(tables, heads, strict=True):
                table.append(measure_head(train, head, split, (1,)))
        return [QueryTable.concatenate(parts) for parts in tables]


def _simplest_of_the_best(scores: Sequence[np.ndarray], table: QueryTable, tolerance: float) -> int:
    """The first candidate whose mean score is within `tolerance` standard errors of the best."""
    best = max(range(len(scores)), key=lambda index: scores[index].mean())
    if not best:
        return best
    behind = np.stack([scores[best] - score for score in scores[:best]], axis=1)
    errors = standard_errors(table, behind)
    for index in range(best):
        if behind[:, index].mean() <= tolerance * errors[index]:
            return index
    return best

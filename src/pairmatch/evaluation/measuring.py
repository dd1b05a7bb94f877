"""Fits learners on splits and measures their heads on the test parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.types import Target
from pairmatch.evaluation.auc import ScoredDecisions, score_decisions
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.query_table import QueryTable, RankedQueries, embed_sides, tabulate
from pairmatch.evaluation.reranked import check_target, rerank_all
from pairmatch.evaluation.splits import Split
from pairmatch.evaluation.targets import aim_at, has_answers, of_target


def measure_learner(
    data: PairedFeatures,
    learner: Learner | ProjectionHead | FittedHead,
    splits: Sequence[Split],
    ks: Sequence[int],
    *,
    target: Target = "match",
    seed: int = 0,
    on_split: Callable[[Split, ProjectionHead], object] | None = None,
) -> QueryTable:
    """Fits a learner on every split and ranks the queries of its test part.

    Args:
        data: Features and pairs.
        learner: Fitted on each training part with `seed` plus the number of the repeat; a head is
            tested without being fitted. A re-ranker that comes with the head has the last word.
        splits: Training and test pairs.
        ks: K of Recall@K, each at most the size of the smallest gallery.
        target: What is to be found.
        seed: Seed for the fits.
        on_split: Called after each split with it and the head.

    Returns:
        One row per query and split; `query` counts the rows of `data`.
    """
    tables = []
    for split in splits:
        fitted = fit_stages(data, learner, split, seed)
        tables.append(measure_head(data, fitted.head, split, ks, target, second=fitted.second))
        if on_split is not None:
            on_split(split, fitted.head)
    return QueryTable.concatenate(tables)


def fit_split(
    data: PairedFeatures, learner: Learner | ProjectionHead, split: Split, seed: int = 0
) -> ProjectionHead:
    """The head that a learner learns from a split's training part; heads are returned unchanged."""
    return fit_stages(data, learner, split, seed).head


def fit_stages(
    data: PairedFeatures,
    learner: Learner | ProjectionHead | FittedHead,
    split: Split,
    seed: int = 0,
) -> FittedHead:
    """The head that a learner learns from a split's training part, with its second stage."""
    if isinstance(learner, FittedHead):
        return learner
    if isinstance(learner, ProjectionHead):
        return FittedHead(learner)
    return learner.fit(data.take(split.train), seed=seed + split.repeat)


def measure_head(
    data: PairedFeatures,
    head: ProjectionHead,
    split: Split,
    ks: Sequence[int],
    target: Target = "match",
    *,
    second: SecondStage | None = None,
) -> QueryTable:
    """Ranks the queries of one split's test part with a head that is already fitted.

    Returns:
        One row per query; `query` counts the rows of `data`.

    Raises:
        ConfigurationError: There is a re-ranker, and the target is not the match.
    """
    check_target(second, target)
    test = aim_at(data.take(split.test), target)
    vectors = embed_sides(test, head.for_target(target))
    return _in_data(data, split, _rank(test, vectors, ks, target, second).table)


def score_split(
    data: PairedFeatures, head: ProjectionHead, split: Split, target: Target = "match"
) -> list[ScoredDecisions]:
    """The decided pairs of one split's test part; none without likes and pools."""
    test = aim_at(data.take(split.test), target)
    if not has_answers(test):
        return []
    vectors = embed_sides(test, head.for_target(target))
    return [score_decisions(test, *vectors, target, rows=data.people_of(split.test))]


def chance_table(
    data: PairedFeatures, splits: Sequence[Split], ks: Sequence[int], target: Target = "match"
) -> QueryTable:
    """Metrics of a random order for the rows of `measure_learner`."""
    tables = []
    for split in splits:
        test = aim_at(data.take(split.test), target)
        sizes = (len(test.a), len(test.a if test.b is None else test.b))
        constant = (np.zeros((sizes[0], 1), np.float32), np.zeros((sizes[1], 1), np.float32))
        tables.append(_in_data(data, split, _rank(test, constant, ks, target).chance))
    return QueryTable.concatenate(tables)


def _rank(
    data: PairedFeatures,
    vectors: tuple[Vectors, Vectors],
    ks: Sequence[int],
    target: Target,
    second: SecondStage | None = None,
) -> RankedQueries:
    """The queries that a target asks about, ranked."""
    first = of_target(rank_all(data, *vectors), target)
    ranks = first if second is None else rerank_all(data, vectors, first, second)
    return tabulate(data, ranks, ks, vectors, first)


def _in_data(data: PairedFeatures, split: Split, table: QueryTable) -> QueryTable:
    """Renumbers the query people of a test part to rows of `data`, and adds `repeat` and `fold`."""
    people = data.people_of(split.test)
    queries = table["query"]
    renumbered = np.empty_like(queries)
    for direction, rows in enumerate(people):
        asked = table["direction"] == direction
        renumbered[asked] = rows[queries[asked]]
    columns = {
        "repeat": np.full(len(table), split.repeat, np.int64),
        "fold": np.full(len(table), split.fold, np.int64),
        **table.columns,
        "query": renumbered,
    }
    return replace(table, columns=columns)

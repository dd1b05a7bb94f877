"""Fits learners on splits and measures their heads on the test parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.interfaces import Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Target
from pairmatch.evaluation.auc import ScoredDecisions, score_decisions
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.query_table import QueryTable, RankedQueries, embed_sides, tabulate
from pairmatch.evaluation.splits import Split
from pairmatch.evaluation.targets import aim_at, has_answers, of_target


def measure_learner(
    data: PairedFeatures,
    learner: Learner | ProjectionHead,
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
            tested without being fitted.
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
        head = fit_split(data, learner, split, seed)
        tables.append(measure_head(data, head, split, ks, target))
        if on_split is not None:
            on_split(split, head)
    return QueryTable.concatenate(tables)


def fit_split(
    data: PairedFeatures, learner: Learner | ProjectionHead, split: Split, seed: int = 0
) -> ProjectionHead:
    """The head that a learner learns from a split's training part; heads are returned unchanged."""
    if isinstance(learner, ProjectionHead):
        return learner
    return learner.fit(data.take(split.train), seed=seed + split.repeat).head


def measure_head(
    data: PairedFeatures,
    head: ProjectionHead,
    split: Split,
    ks: Sequence[int],
    target: Target = "match",
) -> QueryTable:
    """Ranks the queries of one split's test part with a head that is already fitted.

    Returns:
        One row per query; `query` counts the rows of `data`.
    """
    test = aim_at(data.take(split.test), target)
    vectors = embed_sides(test, head.for_target(target))
    return _in_data(data, split, _rank(test, vectors, ks, target).table)


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
    data: PairedFeatures, vectors: tuple[Vectors, Vectors], ks: Sequence[int], target: Target
) -> RankedQueries:
    """The queries that a target asks about, ranked."""
    return tabulate(data, of_target(rank_all(data, *vectors), target), ks, vectors)


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

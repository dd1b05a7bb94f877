"""A learner with a second stage, which is kept only if cross-validation supports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pairmatch.core import registry
from pairmatch.core.arrays import Ints, Vectors, check_count
from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError, PartError
from pairmatch.core.interfaces import FittedHead, Learner, Reranker
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.progress import track
from pairmatch.core.second_stage import SecondStage, Traits, fit_reranker
from pairmatch.core.text import printable
from pairmatch.evaluation.comparison import standard_errors
from pairmatch.evaluation.measuring import fit_split
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.query_table import QueryTable, embed_sides, tabulate
from pairmatch.evaluation.reranked import rerank_all, top_lists
from pairmatch.evaluation.splits import Split
from pairmatch.learning.best import inner_splits
from pairmatch.learning.decompositions import Doubles
from pairmatch.learning.traits import components, fit_traits

_FOLDS = 5
_LEAST_GROUPS = 20
_ERRORS = 2.0  # with one, pure noise passes too often


@dataclass(frozen=True, slots=True)
class RerankingGate:
    """Whether held-out partners rank higher with a re-ranker than without, and than by chance.

    A first stage that learned from noise ranks held-out partners below chance: a pair that is left
    out is missing on the other side. A re-ranker that ignores such a first stage improves nothing.

    Attributes:
        first_mrr: MRR of the first stage in the inner cross-validation.
        second_mrr: MRR with the re-ranker, fitted without the people that it is judged on.
        error: Standard error of their difference, over people.
        chance_mrr: MRR of a random order.
        chance_error: Standard error of the difference to it.
        queries: Number of queries.
    """

    first_mrr: float
    second_mrr: float
    error: float
    chance_mrr: float
    chance_error: float
    queries: int

    @classmethod
    def of(cls, first: QueryTable, second: QueryTable, chance: QueryTable) -> RerankingGate:
        """The gate of the same queries, ranked by both stages, by the first, and at random."""
        ranked = second.metric("MRR")
        means, errors = [], []
        for table in (first, chance):
            gains = ranked - table.metric("MRR")
            means.append(float(table.metric("MRR").mean()))
            errors.append(float(standard_errors(first, gains[:, None])[0]))
        return cls(means[0], float(ranked.mean()), errors[0], means[1], errors[1], len(first))

    @classmethod
    def of_record(cls, value: Mapping[str, Any]) -> RerankingGate:
        """What `dataclasses.asdict` made of a gate."""
        return cls(**{field.name: value[field.name] for field in fields(cls)})

    @property
    def is_passed(self) -> bool:
        """Whether both gains are more than two standard errors."""
        gain, beyond = self.second_mrr - self.first_mrr, self.second_mrr - self.chance_mrr
        return gain > max(_ERRORS * self.error, 1e-9) and beyond > _ERRORS * self.chance_error

    def __str__(self) -> str:
        return (
            f"MRR {self.second_mrr:.3f} with it and {self.first_mrr:.3f} without in the inner "
            f"cross-validation ({self.second_mrr - self.first_mrr:+.3f}, standard error "
            f"{self.error:.3f}, {self.queries} queries, chance {self.chance_mrr:.3f})"
        )


class Reranked(Learner):
    """A learner whose best candidates a re-ranker orders again, if that helps held-out people.

    The learner is fitted in an inner cross-validation. Its held-out rankings, in which partners are
    new to the head as they are when it serves, are what the re-ranker learns from, and what it is
    judged on: fitted without the people of each fold, it must improve their MRR by more than two
    standard errors, over the first stage and over chance. Otherwise the result has no re-ranker,
    and a note says so.

    Args:
        learner: The first stage.
        reranker: The second stage.
        progress: Whether to show a bar of the inner cross-validation.
    """

    def __init__(
        self,
        *,
        learner: PartSpec = "best",
        reranker: PartSpec = "pairwise",
        progress: bool = False,
    ) -> None:
        self.learner: Learner = registry.create("learners", learner)
        self.reranker = create_reranker(reranker)
        self.uses_validation = self.learner.uses_validation  # type: ignore[misc]
        self.progress = progress
        self.gate: RerankingGate | None = None

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Fits the first stage on all pairs, then the second on its held-out rankings."""
        self.gate = None
        self.learner.callbacks = self.callbacks
        try:
            fitted = self.learner.fit(train, validation, seed=seed)
        finally:
            self.learner.callbacks = ()  # the folds report nothing
        name = reranker_name(self.reranker)
        try:
            if train.independent < _LEAST_GROUPS:
                raise ConfigurationError(
                    f"{train.independent} independent groups of pairs, at least {_LEAST_GROUPS} "
                    "are needed"
                )
            splits = inner_splits(train, _FOLDS, seed)
        except ConfigurationError as error:
            reason = str(error).removesuffix(".")
            note = f"The re-ranker {name} is not used: it cannot be cross-validated ({reason})."
            return replace(fitted, notes=(*fitted.notes, note))
        targets = components(train, seed=seed)
        shown = track(splits, f"Judging {name}", len(splits), shown=self.progress)
        folds = [_held_out(train, self, split, targets, seed) for split in shown]
        lists = [fold.lists for fold in folds]
        if not all(lists):
            note = f"The re-ranker {name} is not used: in a fold, no list of the best "
            note += f"{self.reranker.top} candidates has a partner beside others."
            return replace(fitted, notes=(*fitted.notes, note))
        tables = [_judge(fold, folds, self.reranker, seed) for fold in folds]
        joined = [QueryTable.concatenate(part) for part in zip(*tables, strict=True)]
        self.gate = RerankingGate.of(*joined)
        if not self.gate.is_passed:
            note = (
                f"The re-ranker {name} is not used: {self.gate}; a gain of more than two standard "
                "errors is needed, over chance too."
            )
            return replace(fitted, notes=(*fitted.notes, note))
        reranker = fit_reranker(
            self.reranker, [batch for part in lists for batch in part], seed=seed
        )
        note = f"The re-ranker {name} orders the best {reranker.top} candidates: {self.gate}."
        traits = fit_traits(embed_sides(train, fitted.head), targets, seed=seed)
        return replace(fitted, notes=(*fitted.notes, note), second=SecondStage(reranker, traits))


def create_reranker(spec: PartSpec, device: str | None = None) -> Reranker:
    """The re-ranker by its spec, not fitted.

    Raises:
        PartError: The part is unknown, broken or cannot be built.
        ConfigurationError: An option is invalid, or its `top` is not a whole number above 0.
    """
    given = {} if device is None else {"device": device}
    reranker: Reranker = registry.create("rerankers", spec, **given)
    check_count(f"{type(reranker).__name__}.top", reranker.top)
    return reranker


def reranker_name(reranker: Reranker) -> str:
    """Registered name of a re-ranker; that of its class if it has none."""
    try:
        return registry.describe("rerankers", reranker)[0]
    except PartError:
        return printable(type(reranker).__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    """Pairs that a head has not seen, and what re-rankers learn from them.

    Attributes:
        split: The split.
        test: Its test part.
        vectors: Embeddings of the test people by the fold's head.
        traits: What that head tells of people.
        lists: Candidates of queries that have a partner among the best.
    """

    split: Split
    test: PairedFeatures
    vectors: tuple[Vectors, Vectors]
    traits: Traits
    lists: list[CandidatePairs]


def _held_out(
    data: PairedFeatures,
    stages: Reranked,
    split: Split,
    targets: tuple[Doubles, Doubles],
    seed: int,
) -> _Fold:
    """Fits the first stage on a split's training part, and ranks its test part."""
    head = fit_split(data, stages.learner, split, seed)
    train, test = data.take(split.train), data.take(split.test)
    known = tuple(
        side[rows] for side, rows in zip(targets, data.people_of(split.train), strict=True)
    )
    traits = fit_traits(embed_sides(train, head), (known[0], known[1]), seed=seed)
    vectors = embed_sides(test, head)
    lists = training_lists(test, vectors, SecondStage(stages.reranker, traits))
    return _Fold(split, test, vectors, traits, lists)


def training_lists(
    test: PairedFeatures,
    vectors: tuple[Vectors, Vectors],
    second: SecondStage,
) -> list[CandidatePairs]:
    """The best candidates of held-out queries, with what is known of them; one batch per direction.

    Queries without a partner among the best are left out: there is nothing to learn for their
    order. Open pairs are left out, because they are neither matches nor rejections.

    Args:
        test: People and pairs that the first stage has not seen.
        vectors: [N, K] and [M, K] float32 embeddings by which candidates are chosen.
        second: A re-ranker that has not learned yet.
    """
    batches = []
    for top in top_lists(test, *vectors, second.top, known=test.open):
        matches = test.matches[:, ::-1] if top.direction else test.matches
        if test.one_sided:
            matches = np.concatenate([matches, matches[:, ::-1]])
        pairs = np.stack([top.queries[top.rows[:, 0]], top.rows[:, 1]], axis=1)
        is_partner = _contained(pairs, matches)
        sizes = np.bincount(top.rows[:, 0], minlength=len(top.queries))
        partners = np.bincount(top.rows[:, 0], is_partner, minlength=len(top.queries))
        usable = (partners > 0) & (partners < sizes)
        kept = usable[top.rows[:, 0]]
        if not kept.any():
            continue
        rows = top.rows[kept]
        rows[:, 0] = (np.cumsum(usable) - 1)[rows[:, 0]]
        chosen = replace(
            top,
            queries=top.queries[usable],
            pools=top.pools[usable],
            rows=rows,
            scores=top.scores[kept],
        )
        batches.append(replace(chosen.pairs(test, vectors, second), is_partner=is_partner[kept]))
    return batches


def _judge(
    fold: _Fold, folds: Sequence[_Fold], reranker: Reranker, seed: int
) -> tuple[QueryTable, QueryTable, QueryTable]:
    """Queries of a fold: by the first stage, by a re-ranker that has not seen them, at random."""
    others = [
        other
        for other in folds
        if other.split.repeat == fold.split.repeat and other.split.fold != fold.split.fold
    ]
    fitted = fit_reranker(reranker, [batch for other in others for batch in other.lists], seed=seed)
    first = rank_all(fold.test, *fold.vectors)
    second = rerank_all(fold.test, fold.vectors, first, SecondStage(fitted, fold.traits))
    ranked = tabulate(fold.test, second, (1,), fold.vectors, first)
    return tabulate(fold.test, first, (1,), fold.vectors).table, ranked.table, ranked.chance


def _contained(pairs: Ints, others: Ints) -> np.ndarray:
    """[P] bool whether each pair is among others."""
    width = int(max(pairs.max(initial=0), others.max(initial=0))) + 1
    weights = np.array([width, 1])
    return np.isin(pairs @ weights, others @ weights)

"""Cross-validation by person: every pair is tested by learners that never saw its people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pairmatch.core import registry
from pairmatch.core.callbacks import Callback, Callbacks
from pairmatch.core.config import PartSpec
from pairmatch.core.display import Displayed, Rows
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.progress import progress_bar
from pairmatch.core.text import how_often, printable
from pairmatch.core.types import Target
from pairmatch.core.units import IDENTICAL_FEATURES_NOTE
from pairmatch.evaluation.auc import AUC, ScoredDecisions, summarize_auc
from pairmatch.evaluation.comparison import Comparison, compare, corrected
from pairmatch.evaluation.intervals import Metrics, summarize
from pairmatch.evaluation.measuring import chance_table, measure_learner, score_split
from pairmatch.evaluation.output import save_rows
from pairmatch.evaluation.pool_notes import candidates_in_words, pool_notes
from pairmatch.evaluation.query_table import QueryTable, usable_ks
from pairmatch.evaluation.splits import (
    Split,
    SplitBy,
    Unseen,
    check_splits,
    cross_validation_splits,
    people_note,
    smallest_gallery,
)

BASELINES = ("frozen", "centred", "whitened", "cca", "ridge", "popularity")
#: Learners that others are compared with by default; `best` takes most of the time.
COMPARED = (*BASELINES, "best")
Tested = Learner | ProjectionHead | FittedHead


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CrossValidation(Displayed):
    """Metrics of every learner on every query; `print` shows the table, `compare` tests a gain.

    Attributes:
        tables: By learner, one row per query and repeat; all tables have the same rows.
        chance: The same rows for a random order.
        confidence: Confidence level of the intervals.
        seed: Seed of splits, learners and resampling.
        notes: Caveats about the results.
        scored: By learner, the decided pairs of the test parts with their scores; empty without
            likes and pools.
    """

    tables: Mapping[str, QueryTable]
    chance: QueryTable
    confidence: float = 0.95
    seed: int = 0
    notes: tuple[str, ...] = ()
    scored: Mapping[str, ScoredDecisions] = field(default_factory=dict)
    _computed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def learners(self) -> tuple[str, ...]:
        """Names of the learners, without chance."""
        return tuple(self.tables)

    @property
    def ks(self) -> tuple[int, ...]:
        """K of Recall@K."""
        return self.chance.ks

    @property
    def queries(self) -> int:
        """Number of distinct queries: a query person counts once, however often they are tested."""
        return self.chance.queries

    @property
    def splits(self) -> int:
        """Number of splits that were tested."""
        pairs = np.stack([self.chance["repeat"], self.chance["fold"]], axis=1)
        return len(np.unique(pairs, axis=0))

    def table(self, learner: str) -> QueryTable:
        """The table of a learner, or of `chance`.

        Raises:
            ConfigurationError: The learner is unknown.
        """
        if learner == "chance":
            return self.chance
        if learner not in self.tables:
            raise ConfigurationError(
                unknown_name("learner of this cross-validation", learner, self.tables)
            )
        return self.tables[learner]

    def metrics(self, learner: str, *, resamples: int = 1000) -> Metrics:
        """Metrics of a learner (or `chance`) over all queries and repeats, with intervals."""
        table = self.table(learner)
        key = ("metrics", learner, resamples)
        if key not in self._computed:
            self._computed[key] = summarize(
                table,
                resamples=0 if learner == "chance" else resamples,
                confidence=self.confidence,
                seed=self.seed,
            )
        found: Metrics = self._computed[key]
        return found

    def auc(self, learner: str, *, resamples: int = 1000) -> AUC | None:
        """AUC of yes against no of a learner over all test parts, with intervals.

        None without likes and pools, or if no asking person has both a yes and a no.

        Raises:
            ConfigurationError: The learner is unknown.
        """
        self.table(learner)
        if learner not in self.scored:
            return None
        return summarize_auc(
            self.scored[learner],
            resamples=resamples,
            confidence=self.confidence,
            seed=self.seed,
        )

    def compare(self, learner: str, baseline: str, *, metric: str = "MRR") -> Comparison:
        """The difference between two learners on the same queries, with interval and paired test.

        Args:
            learner: One of `learners`.
            baseline: Another of `learners`, or `chance`.
            metric: `MRR`, or `R@K` with one of `ks`.

        Raises:
            ConfigurationError: The learner or metric is unknown.
        """
        key = ("comparison", learner, baseline, metric)
        if key not in self._computed:
            self._computed[key] = compare(
                self.table(learner),
                self.table(baseline),
                metric=metric,
                name=learner,
                baseline=baseline,
                confidence=self.confidence,
                seed=self.seed,
            )
        result: Comparison = self._computed[key]
        return result

    def comparisons(self, baseline: str, *, metric: str = "MRR") -> list[Comparison]:
        """Every other learner against one, with Holm's correction for the number of tests."""
        others = [learner for learner in self.learners if learner != baseline]
        return corrected([self.compare(learner, baseline, metric=metric) for learner in others])

    def mean_mrr(self) -> dict[str, float]:
        """Mean MRR of each learner, without intervals."""
        return {name: float(table.metric("MRR").mean()) for name, table in self.tables.items()}

    def references(self) -> list[str]:
        """Learners that the others are tested against: `frozen`, and the best simple baseline.

        Without them it is the first learner; empty if there is nothing to test.
        """
        if len(self.tables) < 2 or self.chance.independent < 2:
            return []
        mrr = self.mean_mrr()
        simple = [name for name in mrr if name in BASELINES]
        best = max(simple, key=lambda name: mrr[name], default=self.learners[0])
        return list(dict.fromkeys([*(["frozen"] if "frozen" in mrr else []), best]))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The tidy table: one row per learner and query, chance first."""
        for learner in ("chance", *self.learners):
            for row in self.table(learner).rows():
                yield {"learner": learner, **row}

    def save(self, path: str | Path) -> Path:
        """Writes the tidy table as CSV or Parquet, by the file's extension.

        Raises:
            ConfigurationError: The extension is unknown.
        """
        return save_rows(self.rows(), path)

    def __repr__(self) -> str:
        return (
            f"CrossValidation({', '.join(map(printable, self.learners))}; {self.queries} queries, "
            f"{self.splits} splits)"
        )

    def display(self) -> tuple[Rows, list[str]]:
        """A table in percent, each learner's interval below it."""
        rows = [["", *(f"R@{k}" for k in self.ks), "MRR"]]
        for learner in ("chance", *self.learners):
            metrics = self.metrics(learner)
            recall = [f"{100 * value:.1f}" for value in metrics.recall.values()]
            rows.append([printable(learner), *recall, f"{metrics.mrr:.3f}"])
            if metrics.mrr_interval:
                recall = [
                    f"{100 * low:.1f}–{100 * high:.1f}"
                    for low, high in metrics.recall_interval.values()
                ]
                rows.append(["", *recall, "{:.3f}–{:.3f}".format(*metrics.mrr_interval)])
        times = how_often(len(self.chance) / self.queries)
        summary = (
            f"{self.queries} queries, each tested {times} among {candidates_in_words(self.chance)};"
            f" recall in percent; {100 * self.confidence:g} % intervals over people"
        )
        measured = {learner: self.auc(learner) for learner in self.learners}
        aucs = [
            f"{printable(learner)}: {auc}" for learner, auc in measured.items() if auc is not None
        ]
        notes = [f"Note: {note}" for note in self.notes]
        return rows, [summary, *aucs, *notes]


def cross_validate(
    data: PairedFeatures | Mapping[str, PairedFeatures],
    learners: Mapping[str, PartSpec] | Sequence[str] = ("contrastive", *COMPARED),
    *,
    repeats: int = 10,
    folds: int = 5,
    by: SplitBy | None = None,
    unseen: Unseen = "both",
    splits: Sequence[Split] | None = None,
    target: Target = "match",
    ks: Sequence[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> CrossValidation:
    """Tests learners on people not seen in training, every pair once per repeat.

    Learners see only the training pairs; data for early stopping and tuning is held out from
    them.

    Args:
        data: Features and pairs, or several sets of features of the same pairs by name; each
            learner then names the set that it uses.
        learners: Names, or by label a learner as a name, a name with options, or an instance; or a
            `FittedHead` or `ProjectionHead`, which is tested without being fitted. With several
            sets of features, `(set, learner)`. `best` takes most of the time; `BASELINES` leaves it
            and the recipe out.
        repeats: Number of repeats, each with new folds.
        folds: Number of folds per repeat.
        by: What folds keep together: `component`, `people` or `pool`; by default by component, or
            by people where nearly all pairs are connected.
        unseen: `both`, or the side whose test people are new, among people of the other side who
            may have been seen: the directions are then queries of new people among seen ones, and
            of seen people among new ones.
        splits: Your own splits instead of `repeats`, `folds`, `by` and `unseen`.
        target: What is to be found in the test parts: the match, or everyone to whom one side said
            yes. Learners see all that is known of the training pairs.
        ks: K of Recall@K; by default the recipe's that fit the smallest gallery.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for splits and learners.
        progress: Whether to show a progress bar.
        callbacks: Receive the metrics of each learner, without intervals.

    Raises:
        ConfigurationError: The folds or K are impossible, sets of features describe different
            pairs, the training and test parts of a split overlap, or a learner is named `chance`.
        PartError: A learner is unknown.
    """
    first, tasks = _tasks(data, learners)
    if splits is None:
        splits = cross_validation_splits(
            first, repeats=repeats, folds=folds, seed=seed, by=by, unseen=unseen, target=target
        )
    check_splits(first, splits, target)
    smallest = smallest_gallery(first, splits, target)
    used, notes = usable_ks(ks, smallest, pooled=first.pools is not None)
    notes += people_note(first, splits, target)
    tables = {}
    scored = {}
    with progress_bar(progress) as bar, Callbacks(callbacks) as reported:
        task = bar.add_task("Cross-validating", total=len(tasks) * len(splits))
        advance = partial(bar.advance, task)
        for label, (features, learner) in tasks.items():
            parts: list[ScoredDecisions] = []
            score = partial(_score, features, target, parts, advance)
            tables[label] = measure_learner(
                features, learner, splits, used, target=target, seed=seed, on_split=score
            )
            reported.on_evaluation(label, summarize(tables[label], resamples=0).flat())
            if parts:
                scored[label] = ScoredDecisions.concatenate(parts)
    shared = first.identical_across_components()
    if shared:
        notes.append(IDENTICAL_FEATURES_NOTE.format(shared))
    chance = chance_table(first, splits, used, target)
    notes += chance.interval_notes
    notes += pool_notes(chance)
    return CrossValidation(tables, chance, confidence, seed, tuple(notes), scored)


def _tasks(
    data: PairedFeatures | Mapping[str, PairedFeatures],
    learners: Mapping[str, PartSpec] | Sequence[str],
) -> tuple[PairedFeatures, dict[str, tuple[PairedFeatures, Tested]]]:
    """The first set of features; and by label, the features and the learner to test on them."""
    sets = {"": data} if isinstance(data, PairedFeatures) else dict(data)
    first = next(iter(sets.values()))
    for name, features in sets.items():
        same_matches = np.array_equal(features.matches, first.matches)
        if not (same_matches and np.array_equal(features.units, first.units)):
            raise ConfigurationError(
                f"The features {name!r} do not describe the same pairs as the first set."
            )
    specs = learners if isinstance(learners, Mapping) else {name: name for name in learners}
    if "chance" in specs:
        raise ConfigurationError("No learner may be named 'chance': it is the random order's name.")
    tasks: dict[str, tuple[PairedFeatures, Tested]] = {}
    for label, spec in specs.items():
        name = ""
        learner: Any = spec
        if not isinstance(data, PairedFeatures):
            name, learner = tuple(spec)
        if name not in sets:
            raise ConfigurationError(unknown_name("set of features", name, sets))
        if not isinstance(learner, ProjectionHead | FittedHead):
            learner = registry.create("learners", learner)
        tasks[label] = (sets[name], learner)
    return first, tasks


def _score(
    data: PairedFeatures,
    target: Target,
    parts: list[ScoredDecisions],
    advance: Callable[[], object],
    split: Split,
    head: ProjectionHead,
) -> None:
    """Adds the decided pairs of a test part, which are compared with each other only."""
    advance()
    for part in score_split(data, head, split, target):
        parts.append(part.in_block(len(parts)))

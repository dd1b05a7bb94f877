"""Cross-validation, repeated and grouped by person.

Every pair is tested by learners that never saw its people.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pairmatch.core import registry
from pairmatch.core.arrays import Ints
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.interfaces import Learner
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.comparison import Comparison, compare, corrected
from pairmatch.evaluation.evaluator import DEFAULT_KS
from pairmatch.evaluation.intervals import Metrics, summaries
from pairmatch.evaluation.ranks import QueryMetrics, place, query_metrics
from pairmatch.io.files import write_file

_log = logging.getLogger(__name__)
BASELINES = ("frozen", "centred", "whitened", "cca", "ridge", "popularity")
TWINS = (
    "{} people share identical features with people of other components (the same photo under two ids?): they may "
    "stand on both sides of a split. join_identical=True (--join-identical) keeps them together."
)
_COLUMNS = ("repeat", "fold", "direction", "query", "component", "candidates")


@dataclass(frozen=True, slots=True)
class Split:
    """One test: labels of the components to learn from and to be tested on."""

    repeat: int
    fold: int
    train: Ints
    test: Ints


def cross_validation_splits(
    data: PairedFeatures, *, repeats: int = 10, folds: int = 5, seed: int = 0
) -> list[Split]:
    """Repeated k-fold, by component: every pair is tested once per repeat.

    Raises:
        ConfigurationError: No repeat, or folds that cannot be.
    """
    if repeats < 1:
        raise ConfigurationError(f"`repeats` must be at least 1, got {repeats}.")
    splits = []
    for repeat in range(repeats):
        parts = data.folds(folds, seed=seed + repeat)
        for fold, test in enumerate(parts):
            train = np.concatenate([part for other, part in enumerate(parts) if other != fold])
            splits.append(Split(repeat, fold, train, test))
    return splits


def holdout_splits(
    data: PairedFeatures, *, repeats: int = 10, test: float = 0.15, seed: int = 0
) -> list[Split]:
    """Repeated splits of the recipe's sizes, by component: the galleries are as large as the paper's share of pairs.

    Raises:
        ConfigurationError: A share that leaves one part empty.
    """
    size = len(data) - int(len(data) * (1 - test) + 1e-9)
    splits = []
    for repeat in range(repeats):
        train, tested = data.parts([len(data) - size, size], seed=seed + repeat)
        if not np.isin(train, data.components).any() or not np.isin(tested, data.components).any():
            raise ConfigurationError(
                f"{len(data)} pairs cannot be split with a test share of {test}."
            )
        splits.append(Split(repeat, 0, train, tested))
    return splits


def check_splits(data: PairedFeatures, splits: Sequence[Split]) -> None:
    """Raises ConfigurationError that names every split of the user's own that would test on what it learned from."""
    problems = []
    for split in splits:
        name = f"repeat {split.repeat}, fold {split.fold}"
        shared = np.intersect1d(split.train, split.test)
        if len(shared):
            problems.append(
                f"{name}: {len(shared)} components stand in both its training and its test part"
            )
        if (
            not np.isin(data.components, split.train).any()
            or not np.isin(data.components, split.test).any()
        ):
            problems.append(f"{name}: its training or its test part holds no match")
    if problems or not splits:
        raise ConfigurationError(
            f"`splits` cannot be used: {'; '.join(problems) or 'there are none'}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """Every learner's metrics on every query; `print` shows the table, `compare` answers whether a gain is real.

    Attributes:
        learners: Names, chance not among them.
        ks: K of Recall@K.
        columns: By name, [Q] int64 each: `repeat`, `fold`, `direction` (0: a asks, 1: b asks),
            `query` (row of the person), `component` (people of one label are one observation),
            `candidates` (size of the gallery).
        values: [learners, Q, number of K + 2] float64: recall at each K, reciprocal rank, expected
            rank.
        chance: [Q, number of K + 2] float64: the same for a random order.
        confidence: Of intervals.
        seed: Of splits, learners and resampling.
        notes: What a reader has to know.
    """

    learners: tuple[str, ...]
    ks: tuple[int, ...]
    columns: Mapping[str, Ints]
    values: npt.NDArray[np.float64]
    chance: npt.NDArray[np.float64]
    confidence: float = 0.95
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def queries(self) -> int:
        """Number of distinct queries: a person who asks, once however often they were tested."""
        return len(np.unique(self.columns["query"] * 2 + self.columns["direction"]))

    def metrics(self, learner: str, *, resamples: int = 1000) -> Metrics:
        """Figures of a learner (or `chance`) over all queries and repeats, with intervals over clusters of people."""
        values = self.chance if learner == "chance" else self.values[self.index(learner)]
        count = 0 if learner == "chance" else resamples
        return line(
            values,
            self.columns["component"],
            self.ks,
            resamples=count,
            confidence=self.confidence,
            seed=self.seed,
        )

    def compare(self, learner: str, baseline: str, *, metric: str = "MRR") -> Comparison:
        """The difference between two learners on the same queries, with interval and paired test.

        Args:
            learner: One of `learners`.
            baseline: Another, or `chance`.
            metric: `MRR`, or `R@K` with a K of `ks`.

        Raises:
            ConfigurationError: A learner or metric that is not there.
        """
        names = ["MRR", *(f"R@{k}" for k in self.ks)]
        if metric not in names:
            raise ConfigurationError(unknown_name("metric", metric, names))
        column = -2 if metric == "MRR" else self.ks.index(int(metric[2:]))
        theirs = self.chance if baseline == "chance" else self.values[self.index(baseline)]
        return compare(
            self.values[self.index(learner)][:, column],
            theirs[:, column],
            self.columns["component"],
            name=learner,
            baseline=baseline,
            metric=metric,
            queries=self.queries,
            confidence=self.confidence,
            seed=self.seed,
        )

    def comparisons(self, baseline: str, *, metric: str = "MRR") -> list[Comparison]:
        """Every other learner against one, with Holm's correction for asking so often."""
        return corrected(
            [
                self.compare(learner, baseline, metric=metric)
                for learner in self.learners
                if learner != baseline
            ]
        )

    def index(self, learner: str) -> int:
        """Position of a learner in `learners`.

        Raises:
            ConfigurationError: It is not there.
        """
        if learner not in self.learners:
            raise ConfigurationError(
                unknown_name("learner of this cross-validation", learner, self.learners)
            )
        return self.learners.index(learner)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The tidy table.

        One row per learner and query, in the order of `learners`, chance first.
        """
        names = [*(f"recall_at_{k}" for k in self.ks), "reciprocal_rank", "rank"]
        columns = {name: self.columns[name].tolist() for name in _COLUMNS}
        columns["direction"] = ["a_to_b" if d == 0 else "b_to_a" for d in columns["direction"]]
        for learner, values in (
            ("chance", self.chance),
            *zip(self.learners, self.values, strict=True),
        ):
            for index, row in enumerate(values.tolist()):
                yield {
                    "learner": learner,
                    **{name: column[index] for name, column in columns.items()},
                    **dict(zip(names, row, strict=True)),
                }

    def save(self, path: str | Path) -> Path:
        """Writes the tidy table as CSV or Parquet, by the file's ending.

        Raises:
            ConfigurationError: Another ending.
        """
        target = Path(path)
        rows = list(self.rows())
        if target.suffix == ".csv":
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_file(target, text.getvalue().encode())
        elif target.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows), buffer)
            write_file(target, buffer.getvalue())
        else:
            raise ConfigurationError(f"`save` writes .csv or .parquet, got {target.name!r}.")
        return target

    def __str__(self) -> str:
        """A table in percent, each learner's interval below it."""
        body: list[list[str]] = []
        for learner in ("chance", *self.learners):
            figures = self.metrics(learner)
            body.append(
                [
                    learner,
                    *(f"{100 * v:.1f}" for v in figures.recall.values()),
                    f"{figures.mrr:.3f}",
                ]
            )
            if figures.mrr_interval:
                bounds = [
                    f"{100 * low:.1f}–{100 * high:.1f}"
                    for low, high in figures.recall_interval.values()
                ]
                body.append(["", *bounds, "{:.3f}–{:.3f}".format(*figures.mrr_interval)])
        header = ["", *(f"R@{k}" for k in self.ks), "MRR"]
        widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
        lines = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in [header, *body]
        ]
        sizes = self.columns["candidates"]
        among = (
            f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        )
        lines.append(
            f"{self.queries} queries, each tested {len(sizes) / self.queries:.3g} times among {among} candidates; "
            f"recall in percent; {100 * self.confidence:g} % intervals over people"
        )
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])


def cross_validate(
    data: PairedFeatures | Mapping[str, PairedFeatures],
    learners: Mapping[str, PartSpec] | Sequence[str] = ("contrastive", *BASELINES),
    *,
    repeats: int = 10,
    folds: int = 5,
    splits: Sequence[Split] | None = None,
    ks: Sequence[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> CrossValidation:
    """Tests learners on people whom they have never seen, every pair once per repeat.

    Learners see the training components alone; whatever they stop early or tune is held out from
    these.

    Args:
        data: Features and pairs, as `PairedFeatures.of` or `Matcher.paired_features` make them. Or
            several sets of features of the same pairs, by name; each learner then names its own.
        learners: Names, or by label a learner as a name, a name with options, or an instance. With
            several sets of features, `(set, learner)`.
        repeats: Times that all folds are drawn anew.
        folds: Parts of each repeat.
        splits: Your own splits instead of `repeats` and `folds`.
        ks: K of Recall@K; the recipe's, as far as the smallest gallery reaches, by default.
        confidence: Of intervals.
        seed: Of splits and learners.
        progress: Shows a progress bar.

    Raises:
        ConfigurationError: Folds or K that cannot be; sets of features that do not describe the
            same pairs; splits of your own that test on what they learned from.
        PartError: An unknown learner.
    """
    sets = {"": data} if isinstance(data, PairedFeatures) else dict(data)
    first = next(iter(sets.values()))
    for name, other in sets.items():
        if not (
            np.array_equal(other.matches, first.matches)
            and np.array_equal(other.components, first.components)
        ):
            raise ConfigurationError(
                f"The features {name!r} do not describe the same pairs as the others."
            )
    named: dict[str, tuple[str, Learner]] = {}
    entries: Mapping[str, Any] = (
        learners if isinstance(learners, Mapping) else {name: name for name in learners}
    )
    for label, spec in entries.items():
        chosen, learner = ("", spec) if isinstance(data, PairedFeatures) else spec
        if chosen not in sets:
            raise ConfigurationError(unknown_name("set of features", chosen, sets))
        named[label] = (chosen, registry.create("learners", learner))
    if splits is None:
        splits = cross_validation_splits(first, repeats=repeats, folds=folds, seed=seed)
    check_splits(first, splits)
    cuts, notes = usable_ks(first, splits, ks)
    columns, chance = frame(first, splits, cuts)
    with progress_bar(progress) as bar:
        task = bar.add_task("Cross-validating", total=len(named) * len(splits))
        values = np.stack(
            [
                measure(
                    sets[chosen],
                    learner,
                    splits,
                    cuts,
                    seed=seed,
                    on_split=lambda: bar.advance(task),
                )
                for chosen, learner in named.values()
            ]
        )
    twins = first.identical_across_components()
    if twins:
        notes.append(TWINS.format(twins))
    return CrossValidation(
        tuple(named), cuts, columns, values, chance, confidence, seed, tuple(notes)
    )


def measure(
    data: PairedFeatures,
    learner: Learner,
    splits: Sequence[Split],
    ks: Sequence[int],
    *,
    seed: int = 0,
    on_split: Any = None,
) -> npt.NDArray[np.float64]:
    """[Q, number of K + 2] metrics of one learner: recall at each K, reciprocal rank, expected rank.

    Rows as `frame` describes them. The seed of a split's fit is `seed` plus the number of its
    repeat.
    """
    rows = []
    for split in splits:
        project = learner.fit(data.of_components(split.train), seed=seed + split.repeat)
        rows += [
            np.column_stack([found.recall, found.reciprocal_rank, found.rank])
            for _, found in _tested(data.of_components(split.test), project, ks)
        ]
        if on_split is not None:
            on_split()
    return np.concatenate(rows)


def frame(
    data: PairedFeatures, splits: Sequence[Split], ks: Sequence[int]
) -> tuple[dict[str, Ints], npt.NDArray[np.float64]]:
    """What does not depend on the learner.

    The columns that say which query a row is, and chance's metrics.
    """
    parts: dict[str, list[Ints]] = {name: [] for name in _COLUMNS}
    chance = []
    for split in splits:
        test = data.of_components(split.test)
        inside = np.isin(data.components, split.test)
        known = data.matches[inside]
        labels = data.components[inside]
        people = (len(test.a), len(test.a if test.b is None else test.b))
        for direction, found in _tested(
            test, lambda features, side: np.zeros((len(features), 1), np.float32), ks
        ):
            mine = known if direction == 0 else known[:, ::-1]
            mine = np.concatenate([mine, mine[:, ::-1]]) if data.one_sided else mine
            own = np.concatenate([labels, labels]) if data.one_sided else labels
            people_rows, first = np.unique(mine[:, 0], return_index=True)
            count = len(people_rows)
            parts["repeat"].append(np.full(count, split.repeat))
            parts["fold"].append(np.full(count, split.fold))
            parts["direction"].append(np.full(count, direction))
            parts["query"].append(people_rows)
            parts["component"].append(own[first])
            parts["candidates"].append(np.full(count, people[1 - direction] - data.one_sided))
            chance.append(
                np.column_stack(
                    [found.chance_recall, found.chance_reciprocal_rank, found.chance_rank]
                )
            )
    return {
        name: np.concatenate(found).astype(np.int64) for name, found in parts.items()
    }, np.concatenate(chance)


def line(
    values: npt.NDArray[np.float64],
    components: Ints,
    ks: Sequence[int],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Metrics:
    """Figures over rows of `measure`, with intervals over components.

    Args:
        values: [Q, number of K + 2].
        components: [Q] labels: people of one label are one observation.
        ks: K of the columns.
        resamples: Of the bootstrap; 0 leaves intervals out.
        confidence: Of intervals.
        seed: Of the bootstrap.
    """
    blank = np.zeros(len(values))
    rows = QueryMetrics(
        components, values[:, :-2], values[:, -2], values[:, -1], values[:, :-2], blank, blank
    )
    return summaries([rows], [components], ks, resamples, (1 - confidence) / 2, seed)[0]


def _tested(
    test: PairedFeatures, project: Any, ks: Sequence[int]
) -> Iterator[tuple[int, QueryMetrics]]:
    e_a = project(test.a, "a")
    e_b = project(test.a if test.b is None else test.b, "b")
    found = place(e_a, e_b, test.matches, one_sided=test.one_sided)
    for direction, placements in enumerate(found):
        if placements is not None:
            yield direction, query_metrics(placements, ks)


def usable_ks(
    data: PairedFeatures, splits: Sequence[Split], ks: Sequence[int] | None
) -> tuple[tuple[int, ...], list[str]]:
    """K that every test's gallery reaches, with a note on those that were left out.

    Raises:
        ConfigurationError: A K that was asked for and is larger than a gallery.
    """
    tests = [data.of_components(split.test) for split in splits]
    smallest = min(
        len(test.a) - 1 if test.b is None else min(len(test.a), len(test.b)) for test in tests
    )
    wanted = DEFAULT_KS if ks is None else tuple(sorted(set(ks)))
    beyond = [k for k in wanted if not 1 <= k <= smallest]
    if beyond and ks is not None:
        raise ConfigurationError(
            f"K = {', '.join(map(str, beyond))} cannot be asked for: the smallest gallery has {smallest} candidates."
        )
    kept = tuple(k for k in wanted if k <= smallest) or (1,)
    left = f"Recall@{', @'.join(map(str, beyond))} left out: the smallest gallery has {smallest} candidates."
    return kept, [left] if beyond else []


def progress_bar(shown: bool) -> Progress:
    """Bar with counts and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not shown,
    )

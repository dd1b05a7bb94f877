"""Measures how well embeddings find true partners, with intervals, beside chance and the frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.arrays import Floats, Ints, check_matches, check_sides, check_vectors, unit_rows
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.evaluation.comparison import Comparison, compare
from pairmatch.evaluation.intervals import Metrics, summaries
from pairmatch.evaluation.ranks import (
    Placements,
    QueryMetrics,
    clusters,
    place,
    query_metrics,
    recall_curve,
)

DEFAULT_KS = (5, 10, 20, 30, 50)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `Evaluator.evaluate` measured; `print` shows it as a table.

    Attributes:
        both: Over the queries of both directions (of the one direction there is, in one-sided
            sets).
        a_to_b: People of side a ask, the gallery is side b; None in one-sided sets.
        b_to_a: The other way round; None in one-sided sets.
        chance: Exact expectation of a random order, for the queries of `both`.
        frozen: The same evaluation of the features as they were before training, or None.
        candidates: Sizes of the galleries that a's and b's partners were looked for in.
        confidence: Of the intervals, for example 0.95.
        notes: What a reader has to know, for example a K that was left out.
        placements: Where every partner stands, one entry per direction.
        query_metrics: Metrics of every query, one entry per direction.
        query_clusters: [Q] int64 per direction: queries of one cluster share people, and are
            resampled together.
    """

    both: Metrics
    a_to_b: Metrics | None
    b_to_a: Metrics | None
    chance: Metrics
    frozen: Evaluation | None
    candidates: tuple[int, ...]
    confidence: float
    notes: tuple[str, ...]
    placements: tuple[Placements, ...] = field(repr=False)
    query_metrics: tuple[QueryMetrics, ...] = field(repr=False)
    query_clusters: tuple[Ints, ...] = field(repr=False)

    @property
    def queries(self) -> int:
        """Number of queries, both directions together."""
        return self.both.queries

    @property
    def ranks(self) -> npt.NDArray[np.float64]:
        """[queries] float64: expected rank of every query's best-placed partner, 1 is first."""
        return np.concatenate([metrics.rank for metrics in self.query_metrics])

    def recall_curve(self) -> npt.NDArray[np.float64]:
        """[smallest gallery] float64.

        Recall@K for K = 1, 2, …, over the queries of both directions.
        """
        length = min(self.candidates)
        curves = np.stack([recall_curve(placements)[:length] for placements in self.placements])
        return np.average(
            curves, axis=0, weights=[len(metrics.queries) for metrics in self.query_metrics]
        )

    def compare(
        self, other: Evaluation, *, metric: str = "MRR", name: str = "this", baseline: str = "other"
    ) -> Comparison:
        """Whether this is better than another evaluation of the same people, with interval and paired test.

        Args:
            other: Of other embeddings of the very same queries and galleries, for example
                `self.frozen`.
            metric: `MRR`, or `R@K` with a K of both tables.
            name: Of this one, for the sentence.
            baseline: Of the other.

        Raises:
            ConfigurationError: Other queries or galleries, or a metric that is not there.
        """
        ks = list(self.both.recall)
        names = ["MRR", *(f"R@{k}" for k in ks if k in other.both.recall)]
        if metric not in names:
            raise ConfigurationError(unknown_name("metric", metric, names))
        same = self.candidates == other.candidates and all(
            np.array_equal(one.queries, two.queries)
            for one, two in zip(self.query_metrics, other.query_metrics, strict=False)
        )
        if not same or len(self.query_metrics) != len(other.query_metrics):
            raise ConfigurationError(
                "`compare` needs two evaluations of the same queries among the same candidates."
            )

        def values(evaluation: Evaluation) -> Floats:
            if metric == "MRR":
                return np.concatenate(
                    [metrics.reciprocal_rank for metrics in evaluation.query_metrics]
                )
            column = list(evaluation.both.recall).index(int(metric[2:]))
            return np.concatenate(
                [metrics.recall[:, column] for metrics in evaluation.query_metrics]
            )

        return compare(
            values(self),
            values(other),
            np.concatenate(self.query_clusters),
            name=name,
            baseline=baseline,
            metric=metric,
            confidence=self.confidence,
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that `evaluate --json` writes; fractions in [0, 1]."""
        figures: dict[str, Any] = {
            "queries": self.queries,
            "candidates": list(self.candidates),
            "confidence": self.confidence,
            "both": self.both.to_dict(),
        }
        for name, metrics in (("a_to_b", self.a_to_b), ("b_to_a", self.b_to_a)):
            if metrics is not None:
                figures[name] = metrics.to_dict()
        figures["chance"] = self.chance.to_dict()
        if self.frozen is not None:
            figures["frozen"] = {
                key: value
                for key, value in self.frozen.to_dict().items()
                if key in ("both", "a_to_b", "b_to_a")
            }
        figures["notes"] = list(self.notes)
        return figures

    def rows(self) -> list[tuple[str, Metrics]]:
        """The lines of the table, by name: chance, frozen, this one, and its directions."""
        lines = [("chance", self.chance)]
        if self.frozen is not None:
            lines.append(("frozen", self.frozen.both))
        lines.append(("trained" if self.frozen is not None else "embeddings", self.both))
        lines += [
            (name, metrics)
            for name, metrics in (("  a → b", self.a_to_b), ("  b → a", self.b_to_a))
            if metrics is not None
        ]
        return lines

    def __str__(self) -> str:
        """A table in percent, with intervals below the line that they belong to."""
        ks = list(self.both.recall)
        header = ["", *(f"R@{k}" for k in ks), "MRR", "median rank"]
        body: list[list[str]] = []
        for name, metrics in self.rows():
            values = [f"{100 * metrics.recall[k]:.1f}" for k in ks]
            body.append([name, *values, f"{metrics.mrr:.3f}", f"{metrics.median_rank:.1f}"])
            if (
                name in ("frozen", "trained", "embeddings")
                and metrics.mrr_interval
                and metrics.median_rank_interval
            ):
                bounds = [
                    f"{100 * low:.1f}–{100 * high:.1f}"
                    for low, high in metrics.recall_interval.values()
                ]
                low, high = metrics.mrr_interval
                first, last = metrics.median_rank_interval
                body.append(["", *bounds, f"{low:.3f}–{high:.3f}", f"{first:.1f}–{last:.1f}"])
        widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
        lines = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in [header, *body]
        ]
        galleries = " and ".join(str(size) for size in dict.fromkeys(self.candidates))
        summary = (
            f"{self.queries} queries, each among {galleries} candidates; recall in percent; "
            f"{100 * self.confidence:g} % intervals"
        )
        return "\n".join([*lines, summary, *(f"Note: {note}" for note in self.notes)])


class Evaluator:
    """Recall@K, MRR and median rank in both directions, for any embeddings.

    Args:
        ks: K of Recall@K. The default K that are larger than the gallery are left out with a note;
            an explicit one that is larger is an error.
        resamples: Bootstrap resamples of the intervals; 0 leaves intervals out.
        confidence: Of the intervals, in (0, 1).
        seed: Seeds the bootstrap.

    Raises:
        ConfigurationError: A K below 1, or an argument out of range.
    """

    def __init__(
        self,
        *,
        ks: Sequence[int] | None = None,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.ks = None if ks is None else tuple(sorted(set(ks)))
        self.resamples, self.confidence, self.seed = resamples, confidence, seed
        if self.ks is not None and (
            not self.ks or any(not isinstance(k, int) or k < 1 for k in self.ks)
        ):
            raise ConfigurationError(
                f"`Evaluator(ks=...)` must be whole numbers of at least 1, got {ks!r}."
            )
        if resamples < 0 or not 0 < confidence < 1:
            raise ConfigurationError(
                "`Evaluator(...)`: resamples must be at least 0 and confidence in (0, 1), "
                f"got {resamples} and {confidence}."
            )

    def evaluate(
        self,
        embeddings_a: Floats | torch.Tensor,
        embeddings_b: Floats | torch.Tensor | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        frozen_a: Floats | torch.Tensor | None = None,
        frozen_b: Floats | torch.Tensor | None = None,
    ) -> Evaluation:
        """Looks for everybody's partners among all people of the other side, by cosine.

        Args:
            embeddings_a: [N, K]; rows are scaled to unit length.
            embeddings_b: [M, K]; None for a one-sided set, where anyone may match anyone and the
                gallery of a person is everybody else.
            matches: [P, 2] rows of side a and side b that match (two rows of `embeddings_a` in a
                one-sided set); by default row i matches row i. People without a match are
                candidates only.
            frozen_a: [N, D] features before training, the baseline of the table; optional.
            frozen_b: [M, D] the same for side b.

        Raises:
            ConfigurationError: Shapes that do not fit, values that are not finite, rows that do not
                exist, a K that was asked for and is larger than the gallery.
        """
        matches = check_sides("embeddings", embeddings_a, embeddings_b, matches)
        people_a = len(embeddings_a)
        people_b = None if embeddings_b is None else len(embeddings_b)
        pairs = check_matches(matches, people_a, people_b)
        galleries = (people_a - 1,) if people_b is None else (people_b, people_a)
        ks, notes = self._usable_ks(min(galleries))

        frozen = None
        if frozen_a is not None:
            check_vectors("frozen_a", frozen_a)
            if (frozen_b is None) != (embeddings_b is None) or len(frozen_a) != people_a:
                raise ConfigurationError(
                    "`frozen_a` and `frozen_b` must describe the same people as the embeddings."
                )
            if frozen_b is not None:
                check_vectors("frozen_b", frozen_b)
                if len(frozen_b) != people_b:
                    raise ConfigurationError(
                        "`frozen_a` and `frozen_b` must describe the same people as the embeddings."
                    )
            frozen = self._measure(frozen_a, frozen_b, pairs, ks, galleries, (), None)
        return self._measure(embeddings_a, embeddings_b, pairs, ks, galleries, notes, frozen)

    def _usable_ks(self, candidates: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        if self.ks is not None:
            beyond = [k for k in self.ks if k > candidates]
            if beyond:
                raise ConfigurationError(
                    f"`Evaluator(ks=...)` asks for K = {', '.join(map(str, beyond))}, but the gallery has only "
                    f"{candidates} candidates: leave those out or evaluate on more pairs."
                )
            return self.ks, ()
        kept = tuple(k for k in DEFAULT_KS if k <= candidates)
        left = [k for k in DEFAULT_KS if k > candidates]
        note = f"Recall@{', @'.join(map(str, left))} left out: the gallery has only {candidates} candidates."
        return kept or (1,), (note,) if left else ()

    def _measure(
        self,
        vectors_a: Floats | torch.Tensor,
        vectors_b: Floats | torch.Tensor | None,
        pairs: Ints,
        ks: tuple[int, ...],
        galleries: tuple[int, ...],
        notes: tuple[str, ...],
        frozen: Evaluation | None,
    ) -> Evaluation:
        placements = tuple(
            found
            for found in place(
                unit_rows(vectors_a), None if vectors_b is None else unit_rows(vectors_b), pairs
            )
            if found is not None
        )
        measured = tuple(query_metrics(found, ks) for found in placements)
        labels = clusters(pairs, len(vectors_a), None if vectors_b is None else len(vectors_b))
        grouped = tuple(
            label[metrics.queries] for label, metrics in zip(labels, measured, strict=False)
        )
        lines = summaries(
            measured, grouped, ks, self.resamples, (1 - self.confidence) / 2, self.seed
        )
        return Evaluation(
            both=lines[0],
            a_to_b=lines[1] if len(lines) == 3 else None,
            b_to_a=lines[2] if len(lines) == 3 else None,
            chance=_chance(measured, ks),
            frozen=frozen,
            candidates=galleries,
            confidence=self.confidence,
            notes=notes,
            placements=placements,
            query_metrics=measured,
            query_clusters=grouped,
        )


def _chance(measured: Sequence[QueryMetrics], ks: Sequence[int]) -> Metrics:
    recall = np.concatenate([metrics.chance_recall for metrics in measured]).mean(0)
    return Metrics(
        queries=sum(len(metrics.queries) for metrics in measured),
        recall={k: float(value) for k, value in zip(ks, recall, strict=True)},
        mrr=float(np.concatenate([metrics.chance_reciprocal_rank for metrics in measured]).mean()),
        median_rank=float(np.median(np.concatenate([metrics.chance_rank for metrics in measured]))),
    )

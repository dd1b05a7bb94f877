"""Measures how well embeddings find true partners, with intervals, chance and frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.comparison import Comparison, compare
from pairmatch.evaluation.intervals import Metrics, summarize, summarize_directions
from pairmatch.evaluation.known import Flags, Known
from pairmatch.evaluation.output import text_table
from pairmatch.evaluation.pool_notes import (
    candidates_in_words,
    pool_figures,
    pool_notes,
    usable_gallery,
)
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.query_table import (
    QueryTable,
    check_ks,
    embed_sides,
    tabulate,
    usable_ks,
)
from pairmatch.evaluation.ranks import PartnerRanks, recall_curve


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of `Evaluator.evaluate`; `print` shows it as a table.

    Attributes:
        both: Metrics over the queries of both directions (of the only one, in one-sided sets).
        a_to_b: People of side a are the queries, side b is the gallery; None in one-sided sets.
        b_to_a: The reverse; None in one-sided sets.
        chance: Exact expectation of a random order, for the queries of `both`.
        frozen: Evaluation of the features before the head; None if there is no head.
        candidates: Size of the gallery of each direction; of the smallest, if they differ, for
            example because of pools.
        confidence: Confidence level of the intervals, for example 0.95.
        notes: Caveats about the results, for example a K that was left out.
        table: One row per query.
        chance_table: The same rows for a random order.
        partner_ranks: Ranks of all true partners, one entry per direction.
        seen: Evaluation of the queries of people who were seen in training, if it is known who was:
            all other figures are then those of new people among new people.
    """

    both: Metrics
    a_to_b: Metrics | None
    b_to_a: Metrics | None
    chance: Metrics
    frozen: Evaluation | None
    candidates: tuple[int, ...]
    confidence: float
    notes: tuple[str, ...]
    table: QueryTable = field(repr=False)
    chance_table: QueryTable = field(repr=False)
    partner_ranks: tuple[PartnerRanks, ...] = field(repr=False)
    seen: Evaluation | None = None

    @property
    def queries(self) -> int:
        """Number of queries, both directions together."""
        return self.both.queries

    @property
    def ranks(self) -> npt.NDArray[np.float64]:
        """[queries] float64 expected rank of each query's best-ranked partner; 1 is first."""
        return self.table["rank"]

    def recall_curve(self) -> npt.NDArray[np.float64]:
        """[smallest gallery, with pools largest] float64: Recall@K for K = 1, 2, …, of `both`."""
        sizes = self.table["candidates"]
        length = int(sizes.max()) if "pool" in self.table.columns else min(self.candidates)
        curves = [recall_curve(ranks)[:length] for ranks in self.partner_ranks]
        curves = [np.pad(curve, (0, length - len(curve)), "edge") for curve in curves]
        queries = np.bincount(self.table["direction"])
        return np.average(np.stack(curves), axis=0, weights=queries[queries > 0])

    def compare(
        self,
        other: Evaluation,
        *,
        metric: str = "MRR",
        name: str = "this",
        baseline: str = "other",
    ) -> Comparison:
        """Whether this is better than another evaluation of the same people.

        Args:
            other: Evaluation of other embeddings of the same queries and galleries, for example
                `self.frozen`.
            metric: `MRR`, or `R@K` with a K of both tables.
            name: Name of this evaluation, for the sentence.
            baseline: Name of the other evaluation.

        Raises:
            ConfigurationError: The queries or galleries differ, or the metric is unknown.
        """
        return compare(
            self.table,
            other.table,
            metric=metric,
            name=name,
            baseline=baseline,
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
        figures |= pool_figures(self.table)
        for name, metrics in (("a_to_b", self.a_to_b), ("b_to_a", self.b_to_a)):
            if metrics is not None:
                figures[name] = metrics.to_dict()
        figures["chance"] = self.chance.to_dict()
        if self.frozen is not None:
            frozen = self.frozen.to_dict()
            figures["frozen"] = {
                key: frozen[key] for key in ("both", "a_to_b", "b_to_a") if key in frozen
            }
        if self.seen is not None:
            figures["seen"] = self.seen.to_dict()
        figures["notes"] = list(self.notes)
        return figures

    def rows(self) -> list[tuple[str, Metrics]]:
        """The rows of the printed table: chance, frozen, this evaluation, and its directions."""
        rows = [("chance", self.chance)]
        if self.frozen is not None:
            rows.append(("frozen", self.frozen.both))
        rows.append(("trained" if self.frozen is not None else "embeddings", self.both))
        for name, metrics in (("  a → b", self.a_to_b), ("  b → a", self.b_to_a)):
            if metrics is not None:
                rows.append((name, metrics))
        return rows

    def __str__(self) -> str:
        """A table in percent, with intervals below the rows that they belong to."""
        ks = list(self.both.recall)
        rows = [["", *(f"R@{k}" for k in ks), "MRR", "median rank"]]
        for name, metrics in self.rows():
            recall = [f"{100 * metrics.recall[k]:.1f}" for k in ks]
            rows.append([name, *recall, f"{metrics.mrr:.3f}", f"{metrics.median_rank:.1f}"])
            shows_interval = name in ("frozen", "trained", "embeddings")
            if shows_interval and metrics.mrr_interval and metrics.median_rank_interval:
                recall = [
                    f"{100 * low:.1f}–{100 * high:.1f}"
                    for low, high in metrics.recall_interval.values()
                ]
                mrr = "{:.3f}–{:.3f}".format(*metrics.mrr_interval)
                median_rank = "{:.1f}–{:.1f}".format(*metrics.median_rank_interval)
                rows.append(["", *recall, mrr, median_rank])
        summary = (
            f"{self.queries} queries, each among {candidates_in_words(self.table, self.candidates)}"
            f"; recall in percent; {100 * self.confidence:g} % intervals"
        )
        lines = [*text_table(rows), summary, *(f"Note: {note}" for note in self.notes)]
        if self.seen is not None:
            lines += ["", "People who were seen in training:", str(self.seen)]
        return "\n".join(lines)


class Evaluator:
    """Recall@K, MRR and median rank in both directions, for any features and head.

    Args:
        ks: K of Recall@K. Default K that are larger than the gallery are left out with a note; an
            explicit K that is larger is an error. With pools, the gallery is the largest pool.
        resamples: Number of bootstrap resamples of the intervals; 0 for no intervals.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for the bootstrap.

    Raises:
        ConfigurationError: A K is below 1, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        ks: Sequence[int] | None = None,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        if resamples < 0 or not 0 < confidence < 1:
            raise ConfigurationError(
                "`Evaluator(...)`: resamples must be at least 0 and confidence in (0, 1), got "
                f"{resamples} and {confidence}."
            )
        self.ks = None if ks is None else check_ks(ks)
        self.resamples = resamples
        self.confidence = confidence
        self.seed = seed

    def evaluate(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None = None,
        *,
        known: Known | None = None,
    ) -> Evaluation:
        """Ranks all people of the other side for every person who has a partner, by cosine.

        Args:
            data: Features and matches. People without a match are candidates only.
            head: Projects the features; the table then also shows the features themselves, as
                `frozen`. None evaluates the features.
            known: What was known in training. The figures are then those of matches between new
                people among new people; those of queries of seen people, among everyone but their
                known partners, are in `seen`. With fewer than two matches of new people, the
                figures are those of seen people, and a note says so.

        Raises:
            ConfigurationError: A requested K is larger than the gallery.
        """
        if not isinstance(data, PairedFeatures):
            raise ConfigurationError(
                f"`Evaluator.evaluate` takes `PairedFeatures`, got {type(data).__name__}: build "
                "them with `PairedFeatures.of(a, b)`, or call `evaluate_arrays`."
            )
        if known is None:
            return self._compare(data, head)
        seen_units = known.seen_units(data)
        fresh = data.inside(a=~seen_units, b=~seen_units)
        seen = None
        if seen_units[data.unit_pairs(data.matches)].any():
            seen = self._compare(data, head, seen_units, known.matches)
        if len(fresh) < 2 and seen is not None:
            note = (
                f"Only {len(fresh)} of {len(data)} matches are between two new people: these are "
                "figures of people who were seen in training, which say little about new ones."
            )
            return replace(seen, notes=(*seen.notes, note))
        return replace(self._compare(data.take(fresh), head, seen_units), seen=seen)

    def evaluate_arrays(
        self,
        embeddings_a: Floats | torch.Tensor,
        embeddings_b: Floats | torch.Tensor | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        frozen_a: Floats | torch.Tensor | None = None,
        frozen_b: Floats | torch.Tensor | None = None,
    ) -> Evaluation:
        """`evaluate` for embeddings in arrays: a wrapper around `PairedFeatures.of`.

        Args:
            embeddings_a: [N, K]; rows are scaled to unit length.
            embeddings_b: [M, K]; None for a one-sided set, in which any person may match any other.
            matches: [P, 2] rows of side a and side b that match (two rows of `embeddings_a` in a
                one-sided set); by default row i matches row i.
            frozen_a: [N, D] features before training, for comparison; optional.
            frozen_b: [M, D] the same for side b.

        Raises:
            ConfigurationError: Shapes do not match, values are not finite, rows do not exist, or a
                requested K is larger than the gallery.
        """
        data = PairedFeatures.of(embeddings_a, embeddings_b, matches=matches, name="embeddings")
        if frozen_a is None:
            return self._measure(data, None, None)
        sizes = [None if side is None else len(side) for side in (frozen_a, frozen_b)]
        if sizes != [len(data.a), None if data.b is None else len(data.b)]:
            raise ConfigurationError(
                "`frozen_a` and `frozen_b` must describe the same people as the embeddings."
            )
        frozen = PairedFeatures.of(frozen_a, frozen_b, matches=data.matches, name="frozen")
        return self._measure(data, None, self._measure(frozen, None, None))

    def _compare(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None,
        seen_units: Flags | None = None,
        known: Ints | None = None,
    ) -> Evaluation:
        frozen = None if head is None else self._measure(data, None, None, seen_units, known)
        return self._measure(data, head, frozen, seen_units, known)

    def _measure(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None,
        frozen: Evaluation | None,
        seen_units: Flags | None = None,
        known: Ints | None = None,
    ) -> Evaluation:
        """Figures of all queries; only of those of seen people, if known matches are given."""
        ranks = rank_all(data, *embed_sides(data, head), known=known)
        seen = None if seen_units is None else _by_side(data, seen_units)
        if seen is not None and known is not None:
            ranks = [part.of_queries(seen[side]) for side, part in enumerate(ranks)]
        smallest = tuple(int(part.candidates.min()) for part in ranks if len(part.queries))
        usable = min(smallest) if data.pools is None else usable_gallery(data)
        ks, notes = usable_ks(self.ks, usable)
        ranked = tabulate(data, ranks, ks)
        table, chance = ranked.table, ranked.chance
        if seen is not None:
            is_seen = np.concatenate(
                [
                    seen[side][table["query"][table["direction"] == side]]
                    for side in range(len(ranks))
                ]
            ).astype(np.int64)
            table, chance = (part.with_column("seen", is_seen) for part in (table, chance))
        both, *directions = summarize_directions(
            table, resamples=self.resamples, confidence=self.confidence, seed=self.seed
        )
        a_to_b, b_to_a = directions or (None, None)
        return Evaluation(
            both=both,
            a_to_b=a_to_b,
            b_to_a=b_to_a,
            chance=summarize(chance, resamples=0),
            frozen=frozen,
            candidates=smallest,
            confidence=self.confidence,
            notes=(*notes, *pool_notes(table), *(table.interval_notes if self.resamples else ())),
            table=table,
            chance_table=chance,
            partner_ranks=ranked.ranks,
        )


def _by_side(data: PairedFeatures, units: Flags) -> list[Flags]:
    """Flags of units as flags of the people of each side, or of all people."""
    sides = [data.units_a] if data.units_b is None else [data.units_a, data.units_b]
    return [units[side] for side in sides]

"""`Evaluation`: the result of evaluating embeddings, and how it is printed and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.display import Displayed, Rows
from pairmatch.core.types import Target
from pairmatch.evaluation.auc import AUC
from pairmatch.evaluation.comparison import Comparison, compare
from pairmatch.evaluation.intervals import Metrics
from pairmatch.evaluation.pool_notes import (
    candidates_in_words,
    pool_figures,
)
from pairmatch.evaluation.query_table import (
    QueryTable,
)
from pairmatch.evaluation.ranks import PartnerRanks, recall_curve

#: Titles of the parts of `Evaluation.mixed`.
MIXED = {
    "new_a": "New people of side a with seen people of side b",
    "new_b": "Seen people of side a with new people of side b",
    "new": "New people with seen people",
}


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(Displayed):
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
        mixed: Evaluations of the matches between a new and a seen person, each ranked among the
            people of such matches: `new_a` where the person of side a is new, `new_b` where that of
            side b is; `new` in one-sided sets. Empty if it is not known who was seen.
        target: What is to be found: the match, or everyone to whom the people of one side said yes;
            there is then one direction of queries, that of this side.
        auc: AUC of yes against no among decided pairs; None without likes or pools.
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
    mixed: Mapping[str, Evaluation] = field(default_factory=dict)
    target: Target = "match"
    auc: AUC | None = None

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
                key: frozen[key] for key in ("both", "a_to_b", "b_to_a", "auc") if key in frozen
            }
        if self.target != "match":
            figures["target"] = self.target
        if self.auc is not None:
            figures["auc"] = self.auc.to_dict()
        if self.seen is not None:
            figures["seen"] = self.seen.to_dict()
        if self.mixed:
            figures["mixed"] = {name: part.to_dict() for name, part in self.mixed.items()}
        figures["notes"] = list(self.notes)
        return figures

    def flat(self) -> dict[str, float]:
        """Metrics by one name each, as callbacks get them; fractions in [0, 1].

        Those of `chance`, `frozen` and `seen` begin with that word.
        """
        parts = {"chance": self.chance}
        if self.frozen is not None:
            parts["frozen"] = self.frozen.both
        if self.seen is not None:
            parts["seen"] = self.seen.both
        flat = {"queries": float(self.queries), **self.both.flat()}
        for name, metrics in parts.items():
            flat |= metrics.flat(f"{name}_")
        return flat if self.auc is None else {**flat, "auc": self.auc.per_person.value}

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

    def __repr__(self) -> str:
        recall = "".join(f"R@{k} {100 * value:.1f} %, " for k, value in self.both.recall.items())
        return f"Evaluation({self.queries} queries, {recall}MRR {self.both.mrr:.3f})"

    def display(self) -> tuple[Rows, list[str]]:
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
        lines = [summary]
        if self.target != "match":
            lines.append(f"To be found: everyone to whom side {self.target[0]} said yes")
        if self.auc is not None:
            lines.append(str(self.auc))
        lines += [f"Note: {note}" for note in self.notes]
        if self.seen is not None:
            lines += ["", "People who were seen in training:", *str(self.seen).splitlines()]
        for name, part in self.mixed.items():
            lines += ["", f"{MIXED[name]}:", *str(part).splitlines()]
        return rows, lines

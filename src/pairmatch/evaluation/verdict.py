"""The verdict on a comparison: which learner to use for these pairs, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.evaluation.comparison import Comparison
from pairmatch.evaluation.crossvalidation import BASELINES, CrossValidation
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.evaluation.intervals import Metrics


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best learner of a comparison; `print` shows it as a sentence or two.

    The best learner is chosen and measured on the same queries, so that its lead is a little
    flattered; the p-values are corrected for the number of learners it was chosen from.

    Attributes:
        best: Learner with the highest mean MRR.
        metrics: Its metrics, with intervals.
        against_chance: Its difference to a random order; None if there is only one independent
            group of people, so that nothing can be tested.
        learner: The learner in question, if it is not the best; otherwise the best simple baseline;
            None if there is no other learner.
        comparison: The difference of `best` to `learner`.
        names: What the sentence calls learners instead of their names.
    """

    best: str
    metrics: Metrics
    against_chance: Comparison | None
    learner: str | None
    comparison: Comparison | None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def beats_chance(self) -> bool:
        """Whether the best learner is significantly better than a random order."""
        return self.against_chance is not None and _is_sure(self.against_chance)

    @property
    def is_sure(self) -> bool:
        """Whether the best learner is significantly better than `learner`."""
        return self.comparison is not None and _is_sure(self.comparison)

    def __str__(self) -> str:
        interval = ""
        if self.metrics.mrr_interval is not None:
            interval = " ({:.3f}–{:.3f})".format(*self.metrics.mrr_interval)
        figure = f"MRR {self.metrics.mrr:.3f}{interval}"
        best = self.best
        if best in self.names:
            best = self.names[best][:1].upper() + self.names[best][1:]
        other = self.names.get(self.learner or "", self.learner)
        if self.against_chance is None:
            return f"{best} has the highest {figure}; too few people are independent for a test."
        if not self.beats_chance:
            return (
                f"No learner is distinguishable from chance on these pairs; the highest is "
                f"{best}, {figure}, p = {self.against_chance.p_value:.2f}."
            )
        if self.comparison is None:
            return f"{best} ranks these pairs best: {figure}."
        low, high = self.comparison.interval
        p = self.comparison.p_value
        gap = (
            f"{other} is {self.comparison.difference:.3f} behind ({low:.3f} to {high:.3f}, "
            f"{'p < 0.001' if p < 0.001 else f'p = {p:.3f}'})"
        )
        doubt = "" if self.is_sure else ", which may be chance"
        return f"{best} ranks these pairs best: {figure}; {gap}{doubt}."

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "best": self.best,
            "metrics": self.metrics.to_dict(),
            "against_chance": self.against_chance and self.against_chance.to_dict(),
            "learner": self.learner,
            "comparison": self.comparison and self.comparison.to_dict(),
            "sentence": str(self),
        }


def judge(
    result: CrossValidation,
    learner: str | None = None,
    *,
    baselines: Collection[str] = BASELINES,
    names: Mapping[str, str] | None = None,
) -> Verdict:
    """Names the best learner, and compares it with the one in question or the best baseline.

    Args:
        result: Result of cross-validation, or of a single split.
        learner: The learner that is to be served, one of the result's; by default the best.
        baselines: Simple learners to measure it against; those of the result are used.
        names: What the sentence calls learners instead of their names.

    Raises:
        ConfigurationError: The learner is not in the result.
    """
    if learner is not None and learner not in result.learners:
        raise ConfigurationError(
            unknown_name("learner of this cross-validation", learner, result.learners)
        )
    mrr = {name: float(result.table(name).metric("MRR").mean()) for name in result.learners}
    best = max(mrr, key=lambda name: (mrr[name], name == learner))
    other = learner
    if learner is None or best == learner:
        simple = [name for name in result.learners if name in baselines and name != best]
        other = max(simple, key=lambda name: mrr[name], default=None)
    is_testable = result.chance.independent > 1
    comparison = against_chance = None
    if is_testable:
        # Seen from the other side, so that all that were candidates for the best count
        against_chance = _test(result, best, "chance")
        comparison = None if other is None else _test(result, best, other)
    return Verdict(best, result.metrics(best), against_chance, other, comparison, names or {})


def judge_evaluation(evaluation: Evaluation) -> Verdict:
    """The verdict on a matcher and its frozen features."""
    tables = {"trained": evaluation.table}
    if evaluation.frozen is not None:
        tables["frozen"] = evaluation.frozen.table
    result = CrossValidation(tables, evaluation.chance_table, evaluation.confidence)
    return judge(
        result, "trained", names={"trained": "this matcher", "frozen": "the frozen cosine"}
    )


def _test(result: CrossValidation, best: str, baseline: str) -> Comparison:
    """The test of the best learner, corrected for all learners that it was chosen from."""
    return next(test for test in result.comparisons(baseline) if test.name == best)


def _is_sure(comparison: Comparison) -> bool:
    return comparison.difference > 0 and comparison.p_value < 1 - comparison.confidence

"""The verdict on a comparison: which learner to use for these pairs, and how sure that is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pairmatch.core.display import decimal
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.evaluation.comparison import Comparison, standard_errors
from pairmatch.evaluation.crossvalidation import BASELINES, CrossValidation
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.evaluation.intervals import Metrics

_LEAST_GROUPS = 20
_ERRORS = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best learner of a comparison; `print` shows it as a sentence or two.

    If the best learner was chosen on other pairs, its figures are unbiased. Otherwise it was chosen
    and measured on the same queries, so that its lead is a little flattered, and the p-values are
    corrected for the number of learners it was chosen from. The best baseline is always chosen on
    the same queries.

    Attributes:
        best: The learner that was chosen on other pairs; otherwise that with the highest mean MRR.
        metrics: Its metrics, with intervals.
        against_chance: Its difference to a random order; None if there is only one independent
            group of people, so that nothing can be tested.
        learner: The learner in question, if it is not the best.
        comparison: The difference of `best` to `learner`; None without one.
        baseline: The best simple baseline other than `best` and `learner`; None if there is none.
        against_baseline: The difference of `best` to `baseline`.
        is_chosen: Whether `best` was chosen on other pairs.
        names: What the sentence calls learners instead of their names.
    """

    best: str
    metrics: Metrics
    against_chance: Comparison | None
    learner: str | None
    comparison: Comparison | None
    baseline: str | None = None
    against_baseline: Comparison | None = None
    is_chosen: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def beats_chance(self) -> bool:
        """Whether the best learner is significantly better than a random order."""
        return self.against_chance is not None and _is_sure(self.against_chance)

    @property
    def is_sure(self) -> bool:
        """Whether the best learner is significantly better than `learner`, or than `baseline`."""
        compared = self.comparison or self.against_baseline
        return compared is not None and _is_sure(compared)

    def __str__(self) -> str:
        interval = ""
        if self.metrics.mrr_interval is not None:
            interval = " ({:.3f}–{:.3f})".format(*self.metrics.mrr_interval)
        figure = f"MRR {self.metrics.mrr:.3f}{interval}"
        best = self._called(self.best)
        if best != self.best:
            best = best[:1].upper() + best[1:]
        if self.against_chance is None:
            return f"{best} has {figure}; too few people are independent for a test."
        if not self.beats_chance:
            return self._not_above_chance(self.against_chance, figure)
        if self.is_chosen:
            parts = [f"{best} is the choice for these pairs: {figure}"]
        else:
            parts = [f"{best} ranks these pairs best: {figure}"]
        if self.comparison is not None:
            parts.append(_gap(self._called(self.learner), self.comparison))
        if self.against_baseline is not None:
            baseline = f"{self._called(self.baseline)}, the best simple baseline,"
            parts.append(_gap(baseline, self.against_baseline))
        return "; ".join(parts) + "."

    def _not_above_chance(self, test: Comparison, figure: str) -> str:
        """The sentence on a best learner that is not significantly better than a random order."""
        best, p_value = self._called(self.best), _p_value(test)
        if test.difference < 0 and test.p_value < 1 - test.confidence:
            kind = "choice" if self.is_chosen else "best learner"
            return f"The {kind} for these pairs, {best}, is worse than chance: {figure}, {p_value}."
        if self.is_chosen:  # the others were not tested
            return (
                f"The choice for these pairs, {best}, is not distinguishable from chance: "
                f"{figure}, {p_value}."
            )
        return (
            f"No learner is distinguishable from chance on these pairs; the highest is {best}, "
            f"{figure}, {p_value}."
        )

    def _called(self, learner: str | None) -> str:
        return self.names.get(learner or "", learner or "")

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "best": self.best,
            "is_chosen": self.is_chosen,
            "metrics": self.metrics.to_dict(),
            "against_chance": self.against_chance and self.against_chance.to_dict(),
            "learner": self.learner,
            "comparison": self.comparison and self.comparison.to_dict(),
            "baseline": self.baseline,
            "against_baseline": self.against_baseline and self.against_baseline.to_dict(),
            "sentence": str(self),
        }


def judge(
    result: CrossValidation,
    learner: str | None = None,
    *,
    chosen: str | None = None,
    baselines: Collection[str] = BASELINES,
    names: Mapping[str, str] | None = None,
) -> Verdict:
    """Names the best learner, and compares it with the one in question and the best baseline.

    Args:
        result: Result of cross-validation, or of a single split.
        learner: The learner that is to be served, one of the result's; by default the best.
        chosen: The learner that other pairs have chosen (`choose`); by default the one with the
            highest MRR.
        baselines: Simple learners to measure it against; those of the result are used.
        names: What the sentence calls learners instead of their names.

    Raises:
        ConfigurationError: A learner is not in the result.
    """
    for name in (learner, chosen):
        if name is not None and name not in result.learners:
            raise ConfigurationError(
                unknown_name("learner of this cross-validation", name, result.learners)
            )
    mrr = result.mean_mrr()
    best = chosen or max(mrr, key=lambda name: (mrr[name], name == learner))
    other = None if learner == best else learner
    simple = [name for name in mrr if name in baselines and name not in (best, other)]
    baseline = max(simple, key=lambda name: mrr[name], default=None)
    tests: dict[str, Comparison] = {}
    for name in ("chance", other, baseline) if result.chance.independent > 1 else ():
        if name is not None and chosen is not None and name != baseline:
            tests[name] = result.compare(best, name)  # settled before these queries were seen
        elif name is not None:
            tests[name] = _test(result, best, name)
    return Verdict(
        best,
        result.metrics(best),
        tests.get("chance"),
        other,
        tests.get(other or ""),
        baseline,
        tests.get(baseline or ""),
        chosen is not None,
        names or {},
    )


def judge_evaluation(evaluation: Evaluation) -> Verdict:
    """The verdict on a matcher and its frozen features."""
    tables = {"trained": evaluation.table}
    if evaluation.frozen is not None:
        tables["frozen"] = evaluation.frozen.table
    result = CrossValidation(tables, evaluation.chance_table, evaluation.confidence)
    mrr = result.mean_mrr()
    return judge(
        result,
        min(mrr, key=lambda name: (mrr[name], name == "trained")),
        baselines=(),
        names={"trained": "this matcher", "frozen": "the frozen cosine"},
    )


def choose(result: CrossValidation, preferred: str | None = None) -> str:
    """The learner to serve: the one with the highest mean MRR.

    A preferred learner is chosen unless another is better by more than two standard errors, and at
    least 20 groups of people are independent. Few pairs would otherwise choose at random among
    learners that differ little, and too often one that was stopped early on the same pairs.

    Args:
        result: Result on pairs that are neither trained nor tested on.
        preferred: The learner that is chosen in doubt, if it is in the result.
    """
    mrr = result.mean_mrr()
    best = max(mrr, key=lambda name: mrr[name])
    if preferred not in mrr or preferred == best:
        return best
    tables = [result.table(name) for name in (best, preferred)]
    ahead = tables[0].metric("MRR") - tables[1].metric("MRR")
    error = float(standard_errors(tables[0], ahead[:, None])[0])
    is_clear = result.chance.independent >= _LEAST_GROUPS and ahead.mean() > _ERRORS * error
    return best if is_clear else str(preferred)


def _test(result: CrossValidation, best: str, baseline: str) -> Comparison:
    """The test of the best learner, corrected for all learners that it was chosen from."""
    return next(test for test in result.comparisons(baseline) if test.name == best)


def _gap(name: str, comparison: Comparison) -> str:
    """How far a learner is behind the best, or ahead of it."""
    sign = 1 if comparison.difference >= 0 else -1
    low, high = sorted(sign * bound for bound in comparison.interval)
    doubt = "" if comparison.p_value < 1 - comparison.confidence else ", which may be chance"
    return (
        f"{name} is {abs(comparison.difference):.3f} {'behind' if sign > 0 else 'ahead'} "
        f"({decimal(low)} to {decimal(high)}, {_p_value(comparison)}){doubt}"
    )


def _p_value(comparison: Comparison) -> str:
    return "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3f}"


def _is_sure(comparison: Comparison) -> bool:
    return comparison.difference > 0 and comparison.p_value < 1 - comparison.confidence

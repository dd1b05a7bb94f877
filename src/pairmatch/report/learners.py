"""A matcher against other learners that learn from the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pairmatch.core import registry
from pairmatch.core.display import text_table
from pairmatch.core.errors import PartError
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.joining import join_features
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.progress import track
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import BASELINES, CrossValidation, cross_validate
from pairmatch.evaluation.splits import Split
from pairmatch.evaluation.verdict import Verdict, choose, judge
from pairmatch.matcher.matcher import Matcher

#: Learners that take longer than the baselines: seconds for a few hundred pairs.
SLOW_LEARNERS = ("best", "contrastive")
#: The row of a matcher's head without its re-ranker.
FIRST_STAGE = "first stage"
_PREFERRED = "best"
_NAMES = {
    "best": "the learner best",
    "contrastive": "the recipe",
    FIRST_STAGE: "this matcher without its re-ranker",
}


@dataclass(frozen=True, slots=True, eq=False)
class LearnerComparison:
    """A matcher, called `trained`, and other learners, on the same test people.

    All learn from the training pairs; those that stop early do so on the validation pairs.

    Attributes:
        data: Features and pairs of all parts.
        split: Training and test pairs of `data`.
        held_out: Validation pairs; None if there are none.
        result: Figures on the test pairs.
        learner: Name of the matcher's learner; empty if it is not registered.
        chosen: The learner that the validation pairs choose; None without at least two that are
            independent.
        asked: The learner that the verdict compares with the best: the matcher's own, or the recipe
            if the matcher serves the best.
    """

    data: PairedFeatures
    split: Split
    held_out: PairedFeatures | None
    result: CrossValidation
    learner: str
    chosen: str | None
    asked: str = "trained"

    def verdict(self) -> Verdict:
        """The verdict on the test pairs."""
        own = "the recipe" if self.learner == "contrastive" else self.learner
        names = {**_NAMES, "trained": f"this matcher ({own or 'a learner of its own'})"}
        return judge(self.result, self.asked, chosen=self.chosen, names=names)

    def serving(self, learner: str) -> LearnerComparison:
        """The same comparison for a matcher whose learner is another one of them.

        Args:
            learner: One of the learners, which becomes `trained`.
        """
        names = {learner: "trained", "trained": self.learner}
        tables = {"trained": self.result.table(learner)}
        tables |= {names.get(name, name): self.result.table(name) for name in self.result.learners}
        chosen = None if self.chosen is None else names.get(self.chosen, self.chosen)
        result = replace(self.result, tables=tables)
        return replace(self, result=result, learner=learner, chosen=chosen)

    def text(self) -> str:
        """What the learners have in common, in a sentence or two."""
        own = f", with the learner {self.learner}" if self.learner else ""
        chosen = "" if self.chosen is None else " Validation pairs choose the one in bold."
        first = (
            f"; {FIRST_STAGE}: without its re-ranker" if FIRST_STAGE in self.result.tables else ""
        )
        return f"trained: this matcher{own}{first}; all learn from the same training pairs.{chosen}"

    def __str__(self) -> str:
        """MRR and one recall of every learner, with intervals of MRR."""
        k = 10 if 10 in self.result.ks else self.result.ks[-1]
        rows = [["", f"R@{k}", "MRR", ""]]
        for name in ("chance", *self.result.learners):
            metrics = self.result.metrics(name)
            bounds = metrics.mrr_interval
            label = f"trained ({self.learner})" if name == "trained" and self.learner else name
            interval = f"{bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else ""
            rows.append([label, f"{100 * metrics.recall[k]:.1f}", f"{metrics.mrr:.3f}", interval])
        return "\n".join(text_table(rows))


def compare_learners(
    matcher: Matcher,
    train: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    others: Sequence[str] = (*SLOW_LEARNERS, *BASELINES),
) -> LearnerComparison:
    """Fits other learners on the training pairs of a matcher, and measures all on the test pairs.

    Every learner gets what the matcher got: the training pairs, and the validation pairs for early
    stopping. A learner that is the matcher's own is not fitted again: without the re-ranker, if the
    matcher has one, it is `first stage`.

    Args:
        matcher: Fitted matcher.
        train: Pairs that the matcher was trained on.
        validation: Pairs that early stopping used, and that choose among the learners.
        test: Pairs that the matcher has not seen.
        others: Names of the learners to compare with.

    Raises:
        NotFittedError: Before `fit`.
    """
    head = matcher.fitted_head
    pairs = [part for part in (train, validation, test) if len(part)]
    features = [matcher.paired_features(part) for part in pairs]
    data, labels = join_features(features)
    parts = [data.part(label) for label in labels]
    held_out = features[1] if len(validation) else None
    fitted: dict[str, ProjectionHead | FittedHead] = {
        "trained": FittedHead(head, second=matcher.second)
    }
    if matcher.second is not None:
        fitted[FIRST_STAGE] = head
    own = _description(matcher.learner)
    for name in track(others, "Comparing learners", len(others), shown=matcher.progress):
        learner: Learner = registry.create("learners", name)
        if _description(learner) != own:
            fitted[name] = learner.fit(features[0], held_out, seed=matcher.seed).head
    split = Split(0, 0, parts[0], parts[-1])
    result = cross_validate(data, fitted, splits=[split], seed=matcher.seed)
    chosen = None
    if held_out is not None and len(np.unique(held_out.components)) > 1:
        choosing = Split(0, 0, parts[0], parts[1])
        tested = cross_validate(data, fitted, splits=[choosing], seed=matcher.seed)
        chosen = choose(tested, "trained" if own[:1] == (_PREFERRED,) else _PREFERRED)
    return LearnerComparison(data, split, held_out, result, own[0] if own else "", chosen)


def serve_best(matcher: Matcher, train: Pairs, validation: Pairs, test: Pairs) -> LearnerComparison:
    """Fits the learner that validation pairs choose, and compares it with the others.

    Args:
        matcher: Gets the learner that is chosen, and is fitted; its own should be `best`.
        train: Pairs to train on.
        validation: Pairs that choose among the learners; without them, the learner is kept.
        test: Pairs that nothing is chosen or learned from.
    """
    matcher.fit(train, validation)
    comparison = compare_learners(matcher, train, validation, test)
    if comparison.chosen not in (None, "trained"):
        matcher.learner = registry.create("learners", comparison.chosen)
        matcher.fit(train, validation)
        comparison = comparison.serving(str(comparison.chosen))
    recipe = "contrastive" if "contrastive" in comparison.result.learners else "trained"
    return replace(comparison, asked=recipe)


def _description(learner: Learner) -> tuple[str, dict[str, object]] | tuple[()]:
    """Name and options of a learner, without where it runs; empty if it is not registered."""
    try:
        name, options = registry.describe("learners", learner)
    except PartError:
        return ()
    return name, {key: options[key] for key in options if key not in ("device", "progress")}

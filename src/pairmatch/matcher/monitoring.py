"""Compares the newest people, scores and outcomes with those of training, and says when to act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2, norm

from pairmatch.core.display import Displayed, Rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.data import Pairs
from pairmatch.evaluation.evaluator import Evaluator
from pairmatch.evaluation.known import Known, without_known
from pairmatch.matcher.matcher import Matcher
from pairmatch.matcher.reference import LEAST_PEOPLE, Histogram, Reference, auc_of, variables_of

#: Population stability indices from which a variable is watched, and is a reason to act.
WATCH = 0.1
ACT = 0.25
_LEVEL = 0.001  # probability of a false alarm, over all variables
_DECLINE_LEVEL = 0.01  # the same, of the matches
_LEAST_DROP = 0.02


@dataclass(frozen=True, slots=True)
class Watched:
    """One variable, compared with training.

    Attributes:
        name: Name of the variable.
        psi: Population stability index.
        unseen: Share of the values that training did not list; None for numbers.
        unseen_before: The same in training.
        chance: Largest index that chance explains, for so many people.
        level: `stable`, `watch` or `act`.
    """

    name: str
    psi: float
    unseen: float | None
    unseen_before: float | None
    chance: float
    level: str


@dataclass(frozen=True, slots=True)
class Monitoring(Displayed):
    """Result of `monitor`; `print` shows it as a table.

    Attributes:
        people: Number of people compared.
        watched: All variables, the least stable first.
        auc: Share of the other candidates that rank below a true partner; None without matches.
        auc_before: The same at training; None if there was no evaluation.
        declined: Whether partners are found less often than at training.
    """

    people: int
    watched: tuple[Watched, ...]
    auc: float | None
    auc_before: float | None
    declined: bool

    @property
    def act(self) -> bool:
        """Whether there is a reason to act."""
        return self.declined or any(one.level == "act" for one in self.watched)

    @property
    def sentence(self) -> str:
        """When to act, and why."""
        causes = [one.name for one in self.watched if one.level == "act"]
        named = ", ".join(causes[:5]) + (f" and {len(causes) - 5} more" if len(causes) > 5 else "")
        if self.declined:
            drop = f"Partners are found less often than at training (AUC {self.auc:.3f}, then "
            also = f"; also changed: {named}" if causes else ""
            return f"Act: {drop}{self.auc_before:.3f}){also}. Fit again, and check the inputs."
        if causes:
            return (
                f"Act: the newest people differ from those of training in {named}. Check the "
                "inputs, and fit again if they are right."
            )
        watch = [one.name for one in self.watched if one.level == "watch"]
        if watch:
            return f"Nothing to do yet; watch {', '.join(watch[:5])}."
        return "Nothing to do: the newest people are like those of training."

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "act": self.act,
            "sentence": self.sentence,
            "people": self.people,
            "auc": self.auc,
            "auc_before": self.auc_before,
            "variables": [
                {
                    "name": one.name,
                    "psi": one.psi,
                    "unseen": one.unseen,
                    "unseen_before": one.unseen_before,
                    "chance": one.chance,
                    "level": one.level,
                }
                for one in self.watched
            ],
        }

    def display(self) -> tuple[Rows, list[str]]:
        """The variables, and what is to be done."""
        rows = [["variable", "PSI", "by chance", "unseen", "then", ""]]
        for one in self.watched:
            shares = [
                "" if share is None else f"{100 * share:.1f} %"
                for share in (one.unseen, one.unseen_before)
            ]
            rows.append([one.name, f"{one.psi:.3f}", f"{one.chance:.3f}", *shares, one.level])
        summary = f"{self.people} people"
        if self.auc is not None:
            summary += f"; AUC of the matches {self.auc:.3f}"
            summary += "" if self.auc_before is None else f", {self.auc_before:.3f} at training"
        return rows, [summary, self.sentence]


def monitor(matcher: Matcher, pairs: Pairs, *, known: Pairs | None = None) -> Monitoring:
    """Compares new pairs and their people with those that a matcher was trained on.

    The population stability index (PSI) sums (p − q) ln(p / q) over the bins of a variable, for the
    shares p now and q at training; by convention, 0.1 is worth watching and 0.25 a reason to act
    (Siddiqi 2006, "Credit Risk Scorecards"). Among few people the index is large by chance: an
    alarm also needs one above the 1 − 0.001 / variables quantile of (1 / N + 1 / M) χ² with one
    degree of freedom less than bins (Yurdakul and Naranjo 2020, "Statistical properties of the
    population stability index"). Matches are a reason to act if their AUC is lower than at training
    by 0.02 and by more than chance explains at a level of 0.01, and at least 20 people have one.

    Args:
        matcher: Fitted matcher, also after `load`.
        pairs: The newest pairs.
        known: Pairs that were known at training time; their matches are no candidates.

    Raises:
        ConfigurationError: The matcher holds no summary of its training people, because it was not
            fitted or was saved by an earlier version; or `sides` differ.
        DataError: All matches are known.
    """
    reference = matcher.reference
    if reference is None:
        raise ConfigurationError(
            "This matcher holds no summary of its training people, which `monitor` compares with: "
            "it was not fitted, or saved by an earlier version. Fit it again."
        )
    if any(part.sides != matcher.sides for part in (pairs, known or pairs)):
        raise ConfigurationError(
            f"This matcher was trained on pairs with sides={matcher.sides}; `monitor` got others."
        )
    head = matcher.fitted_head
    data = matcher.paired_features(pairs)
    values = variables_of(pairs, data, head)
    level = _LEVEL / max(len(reference.variables), 1)
    lost = [None] * len(pairs.people)  # a column that is gone is missing for everyone
    watched = [
        _compare(name, histogram, values.get(name, lost), level)
        for name, histogram in reference.variables.items()
    ]
    auc, declined = None, False
    if len(pairs):
        tested = pairs if known is None else without_known(pairs, known)[0]
        evaluation = Evaluator(resamples=0).evaluate(
            matcher.paired_features(tested),
            head,
            known=None if known is None else Known.of(tested, known),
            second=matcher.second,
        )
        auc, error = auc_of(evaluation)
        declined = evaluation.table.people >= LEAST_PEOPLE and _declined(reference, auc, error)
    order = sorted(watched, key=lambda one: (_LEVELS.index(one.level), -one.psi))
    return Monitoring(len(pairs.people), tuple(order), auc, reference.auc, declined)


_LEVELS = ("act", "watch", "stable")


def _declined(reference: Reference, auc: float | None, error: float | None) -> bool:
    """Whether the AUC is lower than at training by more than chance explains."""
    if auc is None or error is None or reference.auc is None or reference.auc_error is None:
        return False
    spread = float(np.hypot(error, reference.auc_error))
    return reference.auc - auc > max(_LEAST_DROP, float(norm.isf(_DECLINE_LEVEL)) * spread)


def _compare(name: str, histogram: Histogram, values: Sequence[Any], level: float) -> Watched:
    """A variable now and at training."""
    before = np.array(histogram.counts, np.float64)
    now = np.array(histogram.count(values), np.float64)
    used = before + now > 0
    psi, chance = population_stability(now[used], before[used], level)
    is_sure = psi > chance
    rated = "act" if is_sure and psi >= ACT else "watch" if is_sure and psi >= WATCH else "stable"
    unseen, unseen_before = (
        None if histogram.edges else float(counts[-2] / counts.sum()) for counts in (now, before)
    )
    return Watched(name, psi, unseen, unseen_before, chance, rated)


def population_stability(now: Any, before: Any, level: float = 0.05) -> tuple[float, float]:
    """PSI of two vectors of counts, and the largest that chance explains at a level.

    Half a person is added to every bin, so that an empty one has a logarithm.
    """
    p, q = ((np.asarray(counts, np.float64) + 0.5) for counts in (now, before))
    total = 1 / p.sum() + 1 / q.sum()
    p, q = p / p.sum(), q / q.sum()
    psi = float(((p - q) * np.log(p / q)).sum())
    return psi, float(total * chi2.isf(level, max(len(p) - 1, 1)))

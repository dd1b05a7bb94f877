"""Diagnostics of a fitted matcher, as sections of its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Profile
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.diagnostics import (
    attribute_traits,
    hubness,
    labeled_scores,
    learning_curve,
    photo_traits,
    reliability,
    shortcuts,
    slices,
)
from pairmatch.evaluation.pooled_ranks import pool_blocks
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.evaluation.splits import Split
from pairmatch.evaluation.verdict import Verdict
from pairmatch.matcher.matcher import Matcher
from pairmatch.matcher.probabilities import Probabilities
from pairmatch.report.content import Section
from pairmatch.report.evidence import evidence_sections
from pairmatch.report.learners import LearnerComparison, compare_learners
from pairmatch.report.sections import (
    calibration_section,
    comparison_section,
    hubness_section,
    learning_section,
    shortcuts_section,
    slices_section,
)

_HUB_K = 10
_MAX_SLICED_ATTRIBUTES = 6
_MAX_CATEGORIES = 8
_LEARNING_SHARES = (0.25, 0.5, 1.0)
_LEARNING_FOLDS = 3
_LEAST_LEARNING_PAIRS = 5  # of the smallest size

#: People of side a and of side b, in the order of the features; side b is None in one-sided sets.
_People = tuple[list[Profile], list[Profile] | None]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        verdict: The best learner for these pairs, against the matcher or the best baseline; the
            matcher is called `trained`.
        sections: Sections of the report.
    """

    verdict: Verdict
    sections: list[Section]


def diagnose(
    matcher: Matcher,
    train: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    with_learning_curve: bool = True,
    comparison: LearnerComparison | None = None,
) -> Diagnosis:
    """Compares a matcher with other learners, and examines its ranking.

    The sections are: learners with tests, the evidence that a stacked head ranks by, hubness,
    calibration, results by attribute, shortcuts, and a learning curve. All learners learn from the
    training pairs and are tested on the test pairs. The learning curve trains new heads, by
    cross-validation on all pairs.

    Args:
        matcher: Fitted matcher.
        train: Pairs that the matcher was trained on.
        validation: Pairs that early stopping used; without matches, nothing is calibrated.
        test: Pairs that the matcher has not seen.
        with_learning_curve: Whether to draw a learning curve, which trains nine more heads.
        comparison: Result of `compare_learners` with the same pairs; by default it is computed.

    Raises:
        NotFittedError: Before `fit`.
    """
    head = matcher.fitted_head
    if comparison is None:
        comparison = compare_learners(matcher, train, validation, test)
    data, split, result = comparison.data, comparison.split, comparison.result
    tested = data.take(split.test)
    verdict = comparison.verdict()
    people = _people(
        [part for part in (train, validation, test) if len(part)], one_sided=data.one_sided
    )
    sections = [
        comparison_section(result, verdict.best, title="Learners", text=[comparison.text()]),
        *evidence_sections(head),
        _hubness(head, tested),
        _calibration(matcher, comparison.held_out, tested),
        _slices(result, people),
        _shortcuts(matcher, data, people, split, result.metrics("chance").mrr),
        _learning_curve(matcher, data) if with_learning_curve else None,
    ]
    return Diagnosis(verdict, [section for section in sections if section is not None])


def _people(parts: Sequence[Pairs], *, one_sided: bool) -> _People:
    people_a = [part.profiles[person] for part in parts for person in part.ids_a]
    if one_sided:
        return people_a, None
    return people_a, [part.profiles[person] for part in parts for person in part.ids_b]


def _hubness(head: ProjectionHead, tested: PairedFeatures) -> Section | None:
    """Hubness of the trained and the frozen ranking, in each direction."""
    rows = []
    for name, projection in (("trained", head), ("frozen", None)):
        e_a, e_b = embed_sides(tested, projection)
        people = None if tested.pools is None else tested.pools.people()
        turned = None if people is None else [(rows_b, rows_a) for rows_a, rows_b in people]
        directions = [(f"{name}, a → b", e_a, e_b, people), (f"{name}, b → a", e_b, e_a, turned)]
        if tested.one_sided:
            directions = [(name, e_a, e_b, people)]
        for label, queries, candidates, pools in directions:
            largest = max((len(columns) for _, columns in pools or ()), default=len(candidates))
            k = min(_HUB_K, largest - 2)
            if k >= 1:
                hubs = hubness(queries, candidates, k=k, same=tested.one_sided, pools=pools)
                rows.append((label, hubs))
    return hubness_section(rows) if rows else None


def _calibration(
    matcher: Matcher, held_out: PairedFeatures | None, tested: PairedFeatures
) -> Section | None:
    """Probabilities of held-out pairs, those that the matcher saves, checked on the test pairs."""
    head = matcher.fitted_head
    probabilities = matcher.probabilities
    if probabilities is None and held_out is not None:
        probabilities = Probabilities.of(held_out, head)
    if probabilities is None or len(tested) < 2:
        return None
    calibration = probabilities.calibration
    scores, truth = labeled_scores(tested, head)
    predicted = calibration.probability(scores, base_rate=float(truth.mean()))
    candidates = round(float(np.mean([len(block.rows_b) for block in pool_blocks(tested)])))
    return calibration_section(calibration, reliability(predicted, truth), candidates)


def _slices(result: CrossValidation, people: _People) -> Section | None:
    """Metrics of the trained head by attribute of the query person."""
    people_a, people_b = people
    parts = []
    for name in _sliced_attributes([*people_a, *(people_b or [])]):
        values_a = [profile.attributes.get(name) for profile in people_a]
        values_b = None
        if people_b is not None:
            values_b = [profile.attributes.get(name) for profile in people_b]
        parts += slices(result, "trained", name, values_a, values_b)
    return slices_section(parts) if parts else None


def _sliced_attributes(people: Sequence[Profile]) -> list[str]:
    """Names of attributes to slice by: numbers, and categories with few distinct values."""
    names = dict.fromkeys(name for profile in people for name in profile.attributes)
    chosen = []
    for name in names:
        values = {profile.attributes[name] for profile in people if name in profile.attributes}
        numeric = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        if len(values) >= 2 and (numeric or len(values) <= _MAX_CATEGORIES):
            chosen.append(name)
    return chosen[:_MAX_SLICED_ATTRIBUTES]


def _shortcuts(
    matcher: Matcher, data: PairedFeatures, people: _People, split: Split, chance_mrr: float
) -> Section | None:
    """The share of the ranking that traits of photos and attributes explain."""
    people_a, people_b = people
    annotated = matcher.annotate([*people_a, *(people_b or [])])  # from the store, since `fit`
    measured = attribute_traits(annotated)
    if any(profile.images for profile in annotated):
        measured |= photo_traits(annotated, progress=matcher.progress)
    size_a = len(people_a)
    traits = {
        name: (values[:size_a], None if people_b is None else values[size_a:])
        for name, values in measured.items()
        if np.ptp(values, axis=0).any()  # a constant trait explains nothing
    }
    if not traits:
        return None
    results = shortcuts(data, traits, matcher.fitted_head, splits=[split], seed=matcher.seed)
    return shortcuts_section(results, chance_mrr)


def _learning_curve(matcher: Matcher, data: PairedFeatures) -> Section | None:
    """The learning curve of a learner that trains a head by gradient descent."""
    smallest = min(_LEARNING_SHARES) * (1 - 1 / _LEARNING_FOLDS) ** 2 * len(data)
    enough = data.independent >= 2 * _LEARNING_FOLDS and smallest >= _LEAST_LEARNING_PAIRS
    if not (enough and matcher.fitted_head.trainable):
        return None
    curve = learning_curve(
        data,
        matcher.learner,
        shares=_LEARNING_SHARES,
        repeats=1,
        folds=_LEARNING_FOLDS,
        seed=matcher.seed,
        progress=matcher.progress,
    )
    return learning_section(curve)

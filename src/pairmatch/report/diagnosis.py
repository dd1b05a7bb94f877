"""Examines a fitted matcher: what stands in its report beside the table of results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pairmatch.core.arrays import Floats, unit_rows
from pairmatch.core.interfaces import Learner, Projection, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Profile
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import BASELINES, Split, cross_validate
from pairmatch.evaluation.diagnostics import (
    attribute_traits,
    calibrate,
    hubness,
    learning_curve,
    pair_scores,
    photo_traits,
    reliability,
    shortcuts,
    slices,
)
from pairmatch.learning.heads import embed
from pairmatch.matcher.matcher import Matcher
from pairmatch.report.content import Section
from pairmatch.report.sections import (
    calibration_section,
    comparison_section,
    hubness_section,
    learning_section,
    shortcuts_section,
    slices_section,
)

_HUB_K = 10
_SLICED = 6  # most attributes
_SLICE_VALUES = 8  # most different words of an attribute
_LEARNING_SHARES = (0.25, 0.5, 1.0)
_LEARNING_FOLDS = 3


class _Fitted(Learner):
    """A head as it is: nothing is learned anew."""

    def __init__(self, head: ProjectionHead) -> None:
        self.head = head

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        return lambda features, side: embed(self.head, features, side)


def diagnose(
    matcher: Matcher,
    train: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    with_learning_curve: bool = True,
) -> list[Section]:
    """Sections of a report: baselines with tests, hubs, calibration, slices, shortcuts, learning curve.

    Baselines learn from training and validation pairs; all are tested on the test pairs. Only the
    learning curve trains heads anew, on all pairs by cross-validation.

    Args:
        matcher: After `fit`.
        train: Its training pairs.
        validation: Its validation pairs.
        test: Pairs that it never saw.
        with_learning_curve: Trains nine more heads.

    Raises:
        NotFittedError: Before `fit`.
    """
    parts = (train, validation, test)
    data, labels = PairedFeatures.joined([matcher.paired_features(part) for part in parts])
    head = matcher.fitted_head
    split = Split(0, 0, np.concatenate(labels[:2]), labels[2])
    seed = matcher.training.seed
    fitted = _Fitted(head)
    result = cross_validate(
        data, {"trained": fitted, **{name: name for name in BASELINES}}, splits=[split], seed=seed
    )
    sections = [comparison_section(result, "frozen")]

    held, tested = data.of_components(labels[1]), data.of_components(labels[2])
    rankings: list[tuple[str, Floats, Floats | None]] = [
        ("trained", *_projected(head, tested)),
        ("frozen", unit_rows(tested.a), None if tested.b is None else unit_rows(tested.b)),
    ]
    found = []
    for name, a, b in rankings:
        for direction, queries, candidates in (("a → b", a, b), ("b → a", b, a)):
            if queries is None:
                continue
            other = queries if candidates is None else candidates
            k = min(_HUB_K, len(other) - 2)
            if k >= 1:
                label = name if b is None else f"{name}, {direction}"
                found.append((label, hubness(queries, other, k=k, same=candidates is None)))
    if found:
        sections.append(hubness_section(found))

    if len(held) >= 2 and len(tested) >= 2:
        scores, truth = pair_scores(*_projected(head, held), held.matches)
        if truth.any() and not truth.all():
            calibration = calibrate(scores, truth)
            scores, truth = pair_scores(*rankings[0][1:], tested.matches)
            predicted = calibration.probability(scores, base_rate=float(truth.mean()))
            candidates_b = len(tested.a if tested.b is None else tested.b)
            sections.append(
                calibration_section(calibration, reliability(predicted, truth), candidates_b)
            )

    people_a = [part.profiles[person] for part in parts for person in part.ids_a]
    people_b = (
        None
        if data.one_sided
        else [part.profiles[person] for part in parts for person in part.ids_b]
    )
    sliced = [
        one
        for name in _attributes([*people_a, *(people_b or [])])
        for one in slices(
            result,
            "trained",
            name,
            [profile.attributes.get(name) for profile in people_a],
            None if people_b is None else [profile.attributes.get(name) for profile in people_b],
        )
    ]
    if sliced:
        sections.append(slices_section(sliced))

    everybody = matcher.annotate([*people_a, *(people_b or [])])  # all in the store since `fit`
    measured = attribute_traits(everybody) | (
        photo_traits(everybody, progress=matcher.progress)
        if any(p.images for p in everybody)
        else {}
    )
    traits = {
        name: (values[: len(people_a)], None if people_b is None else values[len(people_a) :])
        for name, values in measured.items()
        if np.ptp(values, axis=0).any()  # a trait that all share explains nothing
    }
    if traits:
        explained = shortcuts(data, traits, fitted, splits=[split], seed=seed)
        sections.append(shortcuts_section(explained, result.metrics("chance").mrr))

    if (
        with_learning_curve
        and head.trainable
        and len(np.unique(data.components)) >= 2 * _LEARNING_FOLDS
    ):
        curve = learning_curve(
            data,
            matcher.learner(),
            shares=_LEARNING_SHARES,
            repeats=1,
            folds=_LEARNING_FOLDS,
            seed=seed,
            progress=matcher.progress,
        )
        sections.append(learning_section(curve))
    return sections


def _projected(head: ProjectionHead, data: PairedFeatures) -> tuple[Floats, Floats | None]:
    return embed(head, data.a, "a"), None if data.b is None else embed(head, data.b, "b")


def _attributes(people: Sequence[Profile]) -> list[str]:
    """Attributes that can be sliced by: numbers, and words with few different values."""
    names = dict.fromkeys(name for profile in people for name in profile.attributes)
    chosen = []
    for name in names:
        values = {profile.attributes[name] for profile in people if name in profile.attributes}
        numeric = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        if len(values) >= 2 and (numeric or len(values) <= _SLICE_VALUES):
            chosen.append(name)
    return chosen[:_SLICED]

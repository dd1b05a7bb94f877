"""Splits of paired features into training and test parts that share no people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One test of a cross-validation.

    Attributes:
        repeat: Number of the repeat, from 0.
        fold: Number of the fold, from 0.
        train: Labels of the components to learn from.
        test: Labels of the components to test on.
    """

    repeat: int
    fold: int
    train: Ints
    test: Ints


def cross_validation_splits(
    data: PairedFeatures, *, repeats: int = 10, folds: int = 5, seed: int = 0
) -> list[Split]:
    """Repeated k-fold splits by component: every pair is tested once per repeat.

    Raises:
        ConfigurationError: `repeats` is below 1, or the number of folds is impossible.
    """
    if repeats < 1:
        raise ConfigurationError(f"`repeats` must be at least 1, got {repeats}.")
    splits = []
    for repeat in range(repeats):
        parts = data.folds(folds, seed=seed + repeat)
        for fold, test in enumerate(parts):
            train = np.concatenate([part for index, part in enumerate(parts) if index != fold])
            splits.append(Split(repeat, fold, train, test))
    return splits


def holdout_splits(
    data: PairedFeatures, *, repeats: int = 10, test: float = 0.15, seed: int = 0
) -> list[Split]:
    """Repeated splits of the recipe's sizes by component.

    Galleries then hold the same share of the pairs as the paper's.

    Raises:
        ConfigurationError: A part is empty at this share.
    """
    size = len(data) - int(len(data) * (1 - test) + 1e-9)
    splits = []
    for repeat in range(repeats):
        train_part, test_part = data.parts([len(data) - size, size], seed=seed + repeat)
        has_matches = [np.isin(part, data.components).any() for part in (train_part, test_part)]
        if not all(has_matches):
            raise ConfigurationError(
                f"{len(data)} pairs cannot be split with a test share of {test}."
            )
        splits.append(Split(repeat, 0, train_part, test_part))
    return splits


def check_splits(data: PairedFeatures, splits: Sequence[Split]) -> None:
    """Raises ConfigurationError that names every split whose parts overlap."""
    problems = []
    for split in splits:
        name = f"repeat {split.repeat}, fold {split.fold}"
        shared = np.intersect1d(split.train, split.test)
        if len(shared):
            problems.append(
                f"{name}: {len(shared)} components are in both the training and the test part"
            )
        if not all(np.isin(data.components, part).any() for part in (split.train, split.test)):
            problems.append(f"{name}: the training or the test part holds no match")
    if problems or not splits:
        reason = "; ".join(problems) or "there are none"
        raise ConfigurationError(f"`splits` cannot be used: {reason}.")


def smallest_gallery(data: PairedFeatures, splits: Sequence[Split]) -> int:
    """Size of the smallest gallery among the test parts."""
    return min(min(data.of_components(split.test).galleries) for split in splits)

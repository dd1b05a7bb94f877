"""How much of a ranking simple traits explain: photo quality, background colour, framing, age."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairmatch.core import registry
from pairmatch.core.arrays import Floats, unit_rows
from pairmatch.core.config import PartSpec
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import (
    Split,
    check_splits,
    cross_validation_splits,
    frame,
    line,
    measure,
    progress_bar,
)
from pairmatch.evaluation.intervals import Metrics


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What a simple trait of photos or people explains of a ranking.

    Attributes:
        name: Of the trait.
        alone: Metrics of ranking by this trait alone (a ridge map learned on it).
        explained: Share of what the scores say about who goes with whom that products of the
            trait's values explain, beyond what as many random numbers would; 0 to 1.
    """

    name: str
    alone: Metrics
    explained: float


def explained_share(scores: Floats, trait_a: Floats, trait_b: Floats) -> float:
    """Share of the interaction in a score matrix that is bilinear in a trait, corrected for the trait's width.

    Rows and columns of the scores are centred first: what is left is who goes with whom, popularity
    aside. The correction is that of adjusted R².

    Args:
        scores: [N, M].
        trait_a: [N, p].
        trait_b: [M, p].
    """
    inner = np.asarray(scores, np.float64)
    inner = inner - inner.mean(0, keepdims=True) - inner.mean(1, keepdims=True) + inner.mean()
    total = np.square(inner).sum()
    if total <= 0:
        return 0.0
    left, right = _orthonormal(trait_a), _orthonormal(trait_b)
    share = np.square(left.T @ inner @ right).sum() / total
    freedom = (inner.shape[0] - 1) * (inner.shape[1] - 1)
    chance = left.shape[1] * right.shape[1] / freedom
    return float(np.clip((share - chance) / max(1 - chance, 1e-12), 0, 1))


def _orthonormal(trait: Floats) -> npt.NDArray[np.float64]:
    values = np.asarray(trait, np.float64)
    values = values - values.mean(0)
    u, singular, _ = np.linalg.svd(values, full_matrices=False)
    return u[:, singular > max(singular.max(initial=0), 1e-300) * 1e-9]


def shortcuts(
    data: PairedFeatures,
    traits: Mapping[str, tuple[Floats, Floats | None]],
    learner: PartSpec = "contrastive",
    *,
    repeats: int = 2,
    folds: int = 5,
    splits: Sequence[Split] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[Shortcut]:
    """How much of a learner's ranking of unseen people simple traits explain, alone and as a share of its scores.

    Args:
        data: Features and pairs.
        traits: By name, values [N, p] of side a and [M, p] of side b (None in one-sided sets), such
            as `pairmatch.diagnostics.photo_traits` measures them.
        learner: Whose scores are to be explained.
        repeats: Of cross-validation.
        folds: Of cross-validation.
        splits: Your own splits instead.
        seed: Of splits and learners.
        progress: Shows a progress bar.
    """
    if splits is None:
        splits = cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)
    check_splits(data, splits)
    built = registry.create("learners", learner)
    ks = (1,)
    sets = {
        name: PairedFeatures(
            _standardised(a),
            None if b is None else _standardised(b),
            data.matches,
            data.rejected,
            data.components,
            data.rejected_components,
        )
        for name, (a, b) in traits.items()
    }
    columns, _ = frame(data, splits, ks)
    shares: dict[str, list[float]] = {name: [] for name in sets}
    with progress_bar(progress) as bar:
        task = bar.add_task("Looking for shortcuts", total=len(splits) + len(sets))
        for split in splits:
            test = data.of_components(split.test)
            project = built.fit(data.of_components(split.train), seed=seed + split.repeat)
            scores = project(test.a, "a") @ project(test.a if test.b is None else test.b, "b").T
            for name, other in sets.items():
                trait = other.of_components(split.test)
                shares[name].append(
                    explained_share(scores, trait.a, trait.a if trait.b is None else trait.b)
                )
            bar.advance(task)
        found = []
        for name, other in sets.items():
            values = measure(
                other, registry.create("learners", ("ridge", {})), splits, ks, seed=seed
            )
            figures = line(values, columns["component"], ks, seed=seed)
            found.append(Shortcut(name, figures, float(np.mean(shares[name]))))
            bar.advance(task)
    return found


def _standardised(values: Floats) -> npt.NDArray[np.float32]:
    """Unit variance in each column, and a constant column, so that length is not lost to normalisation."""
    rows = np.asarray(values, np.float64)
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    return unit_rows(np.column_stack([rows, np.ones(len(rows))]))

"""Shortcuts: how much of a ranking simple traits explain, such as photo quality or age."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairmatch.core import registry
from pairmatch.core.arrays import Floats, Vectors, unit_rows
from pairmatch.core.config import PartSpec
from pairmatch.core.interfaces import FittedHead, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.progress import progress_bar
from pairmatch.evaluation.intervals import Metrics, summarize
from pairmatch.evaluation.measuring import fit_split, measure_learner
from pairmatch.evaluation.pooled_ranks import pool_blocks
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.evaluation.splits import Split, check_splits, cross_validation_splits

_KS = (1,)


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How much of a ranking a simple trait of photos or people explains.

    Attributes:
        name: Name of the trait.
        metrics: Metrics of a ranking by this trait only: a ridge map fitted to its values.
        explained: Share of the interaction in the scores (which query goes with which candidate)
            that products of the trait's values explain, corrected for the share that as many random
            numbers would explain; in [0, 1].
    """

    name: str
    metrics: Metrics
    explained: float


def explained_share(scores: Floats, trait_a: Floats, trait_b: Floats) -> float:
    """Share of the interaction in a score matrix that is bilinear in a trait.

    The means of rows and columns are subtracted from the scores first, which removes popularity and
    leaves the interaction. The share is corrected for the trait's width, as adjusted R² is.

    Args:
        scores: [N, M].
        trait_a: [N, p].
        trait_b: [M, p].

    Returns:
        Share in [0, 1].
    """
    return _explained([(scores, trait_a, trait_b)])


def _explained(blocks: Iterable[tuple[Floats, Floats, Floats]]) -> float:
    """`explained_share` of several score matrices together, each with the traits of its people."""
    total = explained = chance = 0.0
    for scores, trait_a, trait_b in blocks:
        values = np.asarray(scores, np.float64)
        interaction = (
            values - values.mean(0, keepdims=True) - values.mean(1, keepdims=True) + values.mean()
        )
        freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
        size = float(np.square(interaction).sum())
        if not size or not freedom:
            continue
        left = _orthonormal_basis(trait_a)
        right = _orthonormal_basis(trait_b)
        total += size
        explained += float(np.square(left.T @ interaction @ right).sum())
        chance += size * left.shape[1] * right.shape[1] / freedom
    if total <= 0:
        return 0.0
    share = (explained - chance) / max(total - chance, 1e-12 * total)
    return float(np.clip(share, 0, 1))


def _orthonormal_basis(trait: Floats) -> npt.NDArray[np.float64]:
    """[N, rank] orthonormal basis of the trait's centered columns."""
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
    """Measures how much of a learner's ranking of unseen people simple traits explain.

    Args:
        data: Features and pairs.
        traits: By name, values [N, p] of side a and [M, p] of side b (None in one-sided sets), for
            example those of `photo_traits`.
        learner: Name, name with options, or instance of the learner whose scores are explained; or
            a `FittedHead` or `ProjectionHead`, which is not fitted again.
        repeats: Number of times that the folds are drawn again.
        folds: Number of folds per repeat.
        splits: Your own splits instead of `repeats` and `folds`.
        seed: Seed for splits and learners.
        progress: Whether to show a progress bar.

    Returns:
        One per trait, in the order of `traits`.

    Raises:
        ConfigurationError: Impossible folds, or splits that test on what they learned from.
    """
    if splits is None:
        splits = cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)
    check_splits(data, splits)
    if isinstance(learner, FittedHead):
        learner = learner.head
    if not isinstance(learner, ProjectionHead):
        learner = registry.create("learners", learner)
    sets = {name: _trait_features(data, *values) for name, values in traits.items()}
    explained: dict[str, list[float]] = {name: [] for name in sets}
    results = []
    with progress_bar(progress) as bar:
        task = bar.add_task("Looking for shortcuts", total=len(splits) + len(sets))
        for split in splits:
            test = data.take(split.test)
            embeddings = embed_sides(test, fit_split(data, learner, split, seed))
            for name, features in sets.items():
                sides = _sides(features.take(split.test))
                blocks = _blocks(test, embeddings, sides)
                explained[name].append(_explained(blocks))
            bar.advance(task)
        ridge = registry.create("learners", "ridge")
        for name, features in sets.items():
            table = measure_learner(features, ridge, splits, _KS, seed=seed)
            share = float(np.mean(explained[name]))
            results.append(Shortcut(name, summarize(table, seed=seed), share))
            bar.advance(task)
    return results


def _blocks(
    data: PairedFeatures, embeddings: tuple[Vectors, Vectors], traits: tuple[Vectors, Vectors]
) -> Iterator[tuple[Vectors, Vectors, Vectors]]:
    """Scores and traits of the people of every pool that has a match; of all people without."""
    for block in pool_blocks(data):
        e_a, trait_a = (side[block.rows_a] for side in (embeddings[0], traits[0]))
        e_b, trait_b = (side[block.rows_b] for side in (embeddings[1], traits[1]))
        yield e_a @ e_b.T, trait_a, trait_b


def _trait_features(data: PairedFeatures, a: Floats, b: Floats | None) -> PairedFeatures:
    """The pairs of `data`, with a trait as features."""
    return data.with_features(_standardize(a), None if b is None else _standardize(b))


def _sides(data: PairedFeatures) -> tuple[Vectors, Vectors]:
    return data.a, data.a if data.b is None else data.b


def _standardize(values: Floats) -> Vectors:
    """[N, p + 1] columns of unit variance and a constant one, scaled to unit length.

    The constant column keeps the magnitude of the values when the length is normalized.
    """
    rows = np.asarray(values, np.float64)
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    return unit_rows(np.column_stack([rows, np.ones(len(rows))]))

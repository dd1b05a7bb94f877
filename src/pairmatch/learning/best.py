"""The learner `best`: several learners joined by weights that inner cross-validation decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np

from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.feature_blocks import FeatureBlock
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.splits import Split, cross_validation_splits
from pairmatch.learning.baselines import CCA, Popularity, Ridge
from pairmatch.learning.block_bases import (
    GROUP_WEIGHT,
    block_shares,
    linear_bases,
    telling_blocks,
)
from pairmatch.learning.closed_form_heads import PopularityHead, fill
from pairmatch.learning.contrastive import Contrastive
from pairmatch.learning.decompositions import Decompositions, centered, ridge_slope
from pairmatch.learning.margins import (
    LEAST_PENALTY,
    Margins,
    choose_weights,
    fit_weights,
    penalized_weights,
)
from pairmatch.learning.metric import PairMetric, solve_metrics
from pairmatch.learning.products import product_bases
from pairmatch.learning.stacking import LEAST_WIDTH, StackedHead

_WHITENED = PairMetric(shrinkage=0.9, strength=0, power=1)
_PRODUCTS: dict[str, tuple[int, CCA | Ridge]] = {
    "products of 8, cca": (8, CCA(width=32, shrinkage=0.5)),
    "products of 16, cca": (16, CCA(width=32, shrinkage=0.5)),
    "products of 32, ridge": (32, Ridge(strength=1)),
}
_RECIPE = "recipe"
_FOLDS_OF_RECIPE = 2  # of which a weight is needed to fit the recipe on the other folds
_TESTED_PAIRS = 500  # of which most weights are learned, where splits by people test fewer
_APPEAL_STRENGTH = 10.0


class Best(Learner):
    """Several learners joined by weights that held-out partners decide.

    Whitened cosine, metrics, CCA, ridge regression (the last two also on products of features),
    popularity and the recipe are fitted in an inner cross-validation. Non-negative weights of their
    scores maximize the likelihood of the true partner among the candidates of held-out people, in
    both directions (stacked generalization: Wolpert 1992, Breiman 1996). The learners are then
    fitted on all pairs, and those with a weight are joined to one head.

    Args:
        folds: Number of folds of the inner cross-validation.
        least_pairs: Minimum number of independent groups of pairs to learn from them; with fewer,
            whitened cosine is used.
        shrinkage: How strongly few pairs shrink the weights to those of whitened cosine alone,
            above 0.
        recipe: Whether the contrastive recipe is among the learners. It takes most of the time; if
            it gets no weight on two folds, it is not fitted on the others.
        width: Maximum width K of the embeddings, at least 3; None keeps that of all joined
            learners together. The notes say what the reduction costs held-out partners, which
            takes a second inner cross-validation. Whitened cosine alone is not reduced.
    """

    def __init__(
        self,
        *,
        folds: int = 5,
        least_pairs: int = 20,
        shrinkage: float = 10.0,
        recipe: bool = True,
        width: int | None = None,
    ) -> None:
        if width is not None and width < LEAST_WIDTH:
            raise ConfigurationError(
                f"`Best(width=...)` must be at least {LEAST_WIDTH}, got {width}."
            )
        if folds < 2 or least_pairs < folds or not 0 < shrinkage < math.inf:
            raise ConfigurationError(
                "`Best(...)`: folds must be at least 2, least_pairs at least folds and shrinkage "
                f"above 0, got {folds}, {least_pairs}, {shrinkage}."
            )
        self.folds = folds
        self.least_pairs = least_pairs
        self.shrinkage = shrinkage
        self.recipe = recipe
        self.width = width

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Learns the weights by cross-validation, then fits all learners on all pairs."""
        if train.independent < self.least_pairs:
            return _without_learning(
                train,
                f"Too few pairs to learn from ({train.independent} independent groups of pairs, at "
                f"least {self.least_pairs} are needed)",
            )
        grouped = 2 <= len(np.unique(train.components)) < len(train)
        try:
            splits = inner_splits(train, self.folds, seed)
        except ConfigurationError as error:
            reason = str(error).removesuffix(".")
            return _without_learning(train, f"Cross-validation is not possible ({reason})")
        bases = partial(
            fit_bases,
            blocks=telling_blocks(train),
            grouped=grouped,
            recipe=self.recipe,
            seed=seed,
        )
        penalty = self.shrinkage / train.independent
        rng = np.random.default_rng(seed)
        labels, held_out = _held_out(train, splits, bases, penalty, rng)
        weights, spreads = choose_weights(held_out, penalty)
        if not weights.any():
            return _without_learning(
                train,
                f"Cross-validation among the {len(train)} training pairs does not show that the "
                "features predict partners",
            )
        chosen = np.flatnonzero(weights)
        used = [labels[index] for index in chosen]
        bases = partial(bases, recipe=_RECIPE in used)

        def stack(part: PairedFeatures) -> StackedHead:
            heads = bases(part)
            joined = {label: heads[label] for label in used}
            return StackedHead.joined(joined, weights[chosen], spreads[chosen])

        stacked = stack(train)
        stacked.block_shares = block_shares(train, stacked)
        if self.width is None or self.width >= stacked.width:
            return FittedHead(stacked)
        reduced = stacked.reduced(train, self.width)
        loss = _loss_of_width(train, splits, stack, reduced.width, rng)
        note = (
            f"Embeddings are reduced from {stacked.width} to {reduced.width} coordinates: a "
            f"held-out partner is {math.exp(-loss[0]):.3f} times as likely to be chosen, and has "
            f"MRR {loss[2]:.3f} instead of {loss[1]:.3f} in the inner cross-validation."
        )
        return FittedHead(reduced, notes=(note,))


def inner_splits(train: PairedFeatures, folds: int, seed: int) -> list[Split]:
    """Folds of the inner cross-validation, repeated where they test few pairs.

    Splits by people leave out the pairs between training and test people: one repeat tests about
    1 / folds of all pairs.

    Args:
        train: Features and matches.
        folds: Number of folds of each repeat, and maximum number of repeats.
        seed: Seed of the folds.

    Raises:
        ConfigurationError: The pairs cannot be split into so many folds.
    """
    splits = cross_validation_splits(train, repeats=1, folds=folds, seed=seed)
    tested = sum(len(split.test) for split in splits)
    repeats = min(folds, math.ceil(min(len(train), _TESTED_PAIRS) / tested))
    if repeats == 1:
        return splits
    return cross_validation_splits(train, repeats=repeats, folds=folds, seed=seed)


def fit_bases(
    train: PairedFeatures,
    *,
    blocks: Sequence[FeatureBlock] | None = None,
    grouped: bool = False,
    recipe: bool = False,
    seed: int = 0,
) -> dict[str, ProjectionHead]:
    """Heads of all base learners by label, whitened cosine first; what they share is solved once.

    Args:
        train: Features and matches.
        blocks: Blocks of features that linear learners read; None for all.
        grouped: Whether metrics that use groups and common partners are among them.
        recipe: Whether the contrastive recipe is among them.
        seed: Seed of the recipe.
    """
    metrics = {
        "whitened": _WHITENED,
        "centered": PairMetric(shrinkage=1, strength=0, power=1),
        "whitened, evened": PairMetric(shrinkage=0.9, strength=0, power=0.5),
        "whitened more": PairMetric(shrinkage=0.5, strength=0, power=1),
    }
    weights = (0.0, GROUP_WEIGHT) if grouped else (0.0,)
    for strength, weight, power in product((0.02, 0.1, 0.3), weights, (1.0, 0.5)):
        label = f"metric {strength:g}{', groups' * bool(weight)}{', evened' * (power < 1)}"
        metrics[label] = PairMetric(strength=strength, group_weight=weight, power=power)
    maps: Mapping[str, CCA | Ridge] = {
        "cca 32": CCA(width=32),
        "cca 128": CCA(width=128),
        "cca 64, whitened more": CCA(width=64, shrinkage=0.5),
        "ridge 0.1": Ridge(strength=0.1),
        "ridge 1": Ridge(strength=1),
        "ridge 10": Ridge(strength=10),
    }

    shared = Decompositions(train)

    def linear(part: PairedFeatures) -> dict[str, ProjectionHead]:
        of_part = shared if part is train else Decompositions(part)
        solved = dict(zip(metrics, solve_metrics(of_part, list(metrics.values())), strict=True))
        mapped = {label: learner.solve(of_part.matched) for label, learner in maps.items()}
        return {**solved, **mapped}

    return {
        **linear_bases(train, blocks or train.blocks, linear, grouped=grouped),
        **product_bases(shared, _PRODUCTS),
        "popularity": Popularity().fit(train).head,
        "number of partners": _appeal(shared),
        **({_RECIPE: Contrastive().fit(train, seed=seed).head} if recipe else {}),
    }


def _held_out(
    train: PairedFeatures,
    splits: Sequence[Split],
    bases: Callable[..., dict[str, ProjectionHead]],
    penalty: float,
    rng: np.random.Generator,
) -> tuple[list[str], list[Margins]]:
    """Labels of the bases, and their margins on the test part of each split.

    The recipe takes most of the time. If it gets no weight on the first folds, it is left out.
    """
    labels: list[str] = []
    folds: list[Margins] = []
    for index, split in enumerate(splits):
        if index == _FOLDS_OF_RECIPE and _RECIPE in labels:
            margins = Margins.concatenate(folds)
            weights = penalized_weights(margins.scaled(margins.spreads()), penalty)
            if not weights[labels.index(_RECIPE)]:
                others = [column for column, label in enumerate(labels) if label != _RECIPE]
                folds = [fold.select(others) for fold in folds]
                bases = partial(bases, recipe=False)
        heads = bases(train.take(split.train))
        labels = list(heads)
        folds.append(Margins.of(train.take(split.test), list(heads.values()), rng))
    return labels, folds


def _loss_of_width(
    train: PairedFeatures,
    splits: Sequence[Split],
    stack: Callable[[PairedFeatures], StackedHead],
    width: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Mean loss of held-out log-likelihood by a smaller width; MRR before and after."""
    folds = []
    for split in splits:
        part = train.take(split.train)
        head = stack(part)
        heads = [head, head if head.width <= width else head.reduced(part, width)]
        folds.append(Margins.of(train.take(split.test), heads, rng))
    margins = Margins.concatenate(folds)
    scale = fit_weights(margins.select([0]), np.zeros(1), LEAST_PENALTY)[0]
    both = scale * np.eye(2)
    before, after = (margins.log_likelihood(weights).mean() for weights in both)
    ranks = [float(margins.reciprocal_ranks(weights).mean()) for weights in both]
    return float(before - after), ranks[0], ranks[1]


def _appeal(decompositions: Decompositions) -> ProjectionHead:
    """Ranks candidates by the number of partners that ridge regression expects of them."""
    train, matched = decompositions.train, decompositions.matched
    sides = [(train.a, matched.a), (train.a if train.b is None else train.b, matched.b)]
    directions = []
    for column, (side, (singular, _)) in enumerate(sides):
        partners = train.matches if train.one_sided else train.matches[:, column]
        counts = np.bincount(partners.ravel(), minlength=len(side)).astype(np.float64)
        rows = centered(side, matched.means[column])
        penalty = _APPEAL_STRENGTH * max((rows**2).sum() / max(len(singular), 1), 1e-12)
        directions.append(ridge_slope(rows, counts - counts.mean(), penalty))
    # The head of a person holds the direction of the other side
    return fill(PopularityHead(dim=train.dim), mean=unit_rows(np.stack(directions[::-1])))


def _without_learning(train: PairedFeatures, reason: str) -> FittedHead:
    note = f"{reason}: people are compared by whitened features."
    return FittedHead(solve_metrics(Decompositions(train), [_WHITENED])[0], notes=(note,))

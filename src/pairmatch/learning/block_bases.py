"""Blocks of features in `best`: which of them tell anything, their own bases, and their shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.feature_blocks import FeatureBlock
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.baselines import CCA, Ridge
from pairmatch.learning.decompositions import Decompositions, Doubles
from pairmatch.learning.heads import describe_head
from pairmatch.learning.metric import PairMetric, solve_metrics
from pairmatch.learning.stacking import StackedHead

GROUP_WEIGHT = 0.3  # of the metrics that use groups and common partners
_MOST_PEOPLE = 500  # of each side, whose scores show how much a block matters
_MOST_PAIRS = 1000  # on which dependence is tested
_PERMUTATIONS = 99
_LEVEL = 0.05  # of the test of a block, in both directions together


def linear_bases(
    train: PairedFeatures,
    blocks: Sequence[FeatureBlock],
    fit: Callable[[PairedFeatures], Mapping[str, ProjectionHead]],
    *,
    grouped: bool = False,
) -> dict[str, ProjectionHead]:
    """Heads of linear learners, by label: of some blocks together, then of each of them alone.

    Args:
        train: Features and matches.
        blocks: Some or all of its blocks.
        fit: Fits heads by label to joined features.
        grouped: Whether the metrics of single blocks use groups and common partners.
    """
    joined = train if len(blocks) == len(train.blocks) else train.of_blocks(blocks)
    heads = {label: _of_blocks(label, head, blocks, train) for label, head in fit(joined).items()}
    for block in blocks if len(blocks) > 1 else ():
        for label, head in _block_bases(train.of_blocks([block]), grouped=grouped).items():
            heads[f"{block.name}: {label}"] = _of_blocks(label, head, [block], train)
    return heads


def telling_blocks(train: PairedFeatures) -> tuple[FeatureBlock, ...]:
    """Blocks that depend on the features of the partner, by a permutation test at 5 %.

    All blocks if there is no evidence for any, and a single block without a test.

    The statistic is the Hilbert-Schmidt independence criterion with linear kernels (Gretton et al.
    2005), between one person's block and all features of the partner, in both directions. People
    exchange their features in the permutations and keep their partners, so that a person of many
    pairs counts once. Columns of noise that pass for features make metrics and maps of the joined
    columns worse, however small their weight.

    Args:
        train: Features and matches, of which at most 1,000 are used.
    """
    if len(train.blocks) == 1:
        return train.blocks
    rng = np.random.default_rng(0)
    pairs = train.matches
    if len(pairs) > _MOST_PAIRS:
        pairs = pairs[rng.choice(len(pairs), _MOST_PAIRS, replace=False)]
    (rows_a, first), (rows_b, second) = (np.unique(side, return_inverse=True) for side in pairs.T)
    number = np.zeros((len(rows_a), len(rows_b)))
    np.add.at(number, (first, second), 1)
    a, b = train.a[rows_a], (train.a if train.b is None else train.b)[rows_b]
    exceeded = []
    for side, other, partners in ((a, b, number), (b, a, number.T)):
        similar = partners @ _similarities(other) @ partners.T
        own = [_similarities(side[:, block.columns]) for block in train.blocks]
        observed = np.array([np.vdot(one, similar) for one in own])
        counts = np.ones(len(own))
        for _ in range(_PERMUTATIONS):
            order = rng.permutation(len(side))
            shuffled = similar[np.ix_(order, order)]
            counts += np.array([np.vdot(one, shuffled) for one in own]) >= observed
        exceeded.append(counts)
    is_telling = np.min(exceeded, axis=0) / (1 + _PERMUTATIONS) <= _LEVEL / 2
    told = [block for block, tells in zip(train.blocks, is_telling, strict=True) if tells]
    return tuple(told) or train.blocks


def block_shares(train: PairedFeatures, head: ProjectionHead) -> dict[str, float]:
    """By name of a block, its share of the score's variation; empty if there is one block.

    How much a block matters is the standard deviation, among the candidates of a query, of what the
    score changes by if all people have the mean features of their side in this block.

    Args:
        train: People, of whom at most 500 of each side are used.
        head: A head for their features.
    """
    if len(train.blocks) == 1:
        return {}
    sides = [_spaced(side) for side in (train.a, train.a if train.b is None else train.b)]
    scores = head.embed(sides[0], "a") @ head.embed(sides[1], "b").T
    deviations = []
    for block in train.blocks:
        hidden = [side.copy() for side in sides]
        for side in hidden:
            side[:, block.columns] = side[:, block.columns].mean(0)
        change = scores - head.embed(hidden[0], "a") @ head.embed(hidden[1], "b").T
        among_b = change - change.mean(1, keepdims=True)
        among_a = change - change.mean(0, keepdims=True)
        deviations.append(float(np.sqrt(((among_a**2).mean() + (among_b**2).mean()) / 2)))
    total = max(sum(deviations), 1e-12)
    names = [block.name for block in train.blocks]
    return dict(zip(names, (deviation / total for deviation in deviations), strict=True))


def _block_bases(part: PairedFeatures, *, grouped: bool) -> dict[str, ProjectionHead]:
    """The cheapest bases of each kind, because they are fitted once per block."""
    metrics = {
        "whitened": PairMetric(shrinkage=0.9, strength=0, power=1),
        "metric 0.1": PairMetric(strength=0.1, group_weight=GROUP_WEIGHT * grouped, power=1),
    }
    shared = Decompositions(part)
    return {
        **dict(zip(metrics, solve_metrics(shared, list(metrics.values())), strict=True)),
        "cca 32": CCA(width=32).solve(shared.matched),
        "ridge 1": Ridge(strength=1).solve(shared.matched),
    }


def _of_blocks(
    label: str, head: ProjectionHead, blocks: Sequence[FeatureBlock], train: PairedFeatures
) -> ProjectionHead:
    """A head of some blocks, for all features; unchanged if it reads all of them."""
    if len(blocks) == len(train.blocks):
        return head
    columns = [(block.start, block.stop) for block in blocks]
    stacked = StackedHead(dim=train.dim, parts={label: describe_head(head)}, columns=columns)
    stacked.heads[0].load_state_dict(head.state_dict())
    return stacked.eval()


def _similarities(features: Vectors) -> Doubles:
    """[N, N] centered inner products of N people, 0 of each with themselves."""
    rows = (features - features.mean(0)).astype(np.float64)
    products = rows @ rows.T
    np.fill_diagonal(products, 0)
    return products


def _spaced(side: Vectors) -> Vectors:
    """At most `_MOST_PEOPLE` rows, evenly spaced."""
    rows = np.linspace(0, len(side) - 1, min(len(side), _MOST_PEOPLE)).astype(np.int64)
    return side[rows]

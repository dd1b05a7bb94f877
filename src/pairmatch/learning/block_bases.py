"""Base learners of `best` that read one block of features, and how much each block matters."""

from __future__ import annotations

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.feature_blocks import FeatureBlock
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.baselines import CCA, Ridge
from pairmatch.learning.decompositions import MatchedSides
from pairmatch.learning.heads import describe_head
from pairmatch.learning.metric import PairMetric, solve_metrics
from pairmatch.learning.stacking import StackedHead

_MOST_PEOPLE = 500  # of each side, whose scores show how much a block matters


def block_bases(train: PairedFeatures, *, grouped: bool = False) -> dict[str, ProjectionHead]:
    """Heads that read one block each, by label; empty if the features have one block.

    Only learners in closed form, because each is fitted once per block.

    Args:
        train: Features and matches.
        grouped: Whether the metrics use groups and common partners.
    """
    heads: dict[str, ProjectionHead] = {}
    if len(train.blocks) == 1:
        return heads
    metrics = {
        "whitened": PairMetric(shrinkage=0.9, strength=0, power=1),
        "metric 0.1": PairMetric(strength=0.1, group_weight=0.3 * grouped, power=1),
    }
    for block in train.blocks:
        part = train.of_block(block)
        sides = MatchedSides.of(part)
        solved = {
            **dict(zip(metrics, solve_metrics(part, list(metrics.values())), strict=True)),
            "cca 32": CCA(width=32).solve(sides),
            "ridge 1": Ridge(strength=1).solve(sides),
        }
        for name, head in solved.items():
            label = f"{block.name}: {name}"
            heads[label] = _of_block(name, head, block, train.dim)
    return heads


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


def _of_block(label: str, head: ProjectionHead, block: FeatureBlock, dim: int) -> ProjectionHead:
    """A head of one block, for features of width D."""
    columns = (block.start, block.stop)
    stacked = StackedHead(dim=dim, parts={label: describe_head(head)}, columns=columns)
    stacked.heads[0].load_state_dict(head.state_dict())
    return stacked.eval()


def _spaced(side: Vectors) -> Vectors:
    """At most `_MOST_PEOPLE` rows, evenly spaced."""
    rows = np.linspace(0, len(side) - 1, min(len(side), _MOST_PEOPLE)).astype(np.int64)
    return side[rows]

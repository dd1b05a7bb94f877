"""Links between people who are one unit: those of a group, and those with identical features."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.errors import ConfigurationError


def identical_labels(a: Vectors, b: Vectors | None) -> Ints:
    """Row of the first person with the same features, for all people of side a, then side b."""
    first: dict[bytes, int] = {}
    rows = [row.tobytes() for side in (a, b) if side is not None for row in side]
    return np.array([first.setdefault(row, index) for index, row in enumerate(rows)], np.int64)


def identical_links(a: Vectors, b: Vectors | None) -> list[tuple[int, int]]:
    """Links between people with the same features."""
    labels = identical_labels(a, b)
    return [(row, label) for row, label in enumerate(labels.tolist()) if row != label]


def group_labels(
    given: Ints, groups: Sequence[Hashable] | None, distinct: Ints, argument: str
) -> list[Hashable | None]:
    """The group of each distinct pair."""
    labels: list[Hashable | None] = [None] * len(distinct)
    if groups is None:
        return labels
    if len(groups) != len(given):
        pair = "match" if argument == "groups" else "rejected pair"
        raise ConfigurationError(
            f"`{argument}` needs one label per {pair}, {len(given)}, got {len(groups)}."
        )
    rows = {tuple(pair): row for row, pair in enumerate(distinct.tolist())}
    for pair, group in zip(given.tolist(), groups, strict=True):
        labels[rows[tuple(pair)]] = group
    return labels


def group_links(
    pairs: Ints, labels: Sequence[Hashable | None], people_a: int, people_b: int | None
) -> list[tuple[int, int]]:
    """Links from both people of each pair to a node of its group; groups follow all people."""
    names = dict.fromkeys(label for label in labels if label is not None)
    first = people_a + (people_b or 0)
    nodes = {name: first + index for index, name in enumerate(names)}
    shift = 0 if people_b is None else people_a
    return [
        (person, nodes[label])
        for (a, b), label in zip(pairs.tolist(), labels, strict=True)
        if label is not None
        for person in (a, b + shift)
    ]

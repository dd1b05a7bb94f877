"""Links between people who are one unit: those of a group, and those with identical features."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.errors import ConfigurationError

IDENTICAL_FEATURES_NOTE = (
    "{} people share identical features with people of other components (one person under two ids, "
    "or people with equal attributes or texts): they may end up on both sides of a split. "
    "join_identical=True (--join-identical) keeps them together."
)


def identical_labels(a: Vectors, b: Vectors | None) -> Ints:
    """Row of the first person with the same features, for all people of side a, then side b."""
    first: dict[bytes, int] = {}
    rows = [row.tobytes() for side in (a, b) if side is not None for row in side]
    return np.array([first.setdefault(row, index) for index, row in enumerate(rows)], np.int64)


def identical_links(a: Vectors, b: Vectors | None) -> list[tuple[int, int]]:
    """Links between people with the same features."""
    labels = identical_labels(a, b)
    return [(row, label) for row, label in enumerate(labels.tolist()) if row != label]


def group_links(
    grouped: Sequence[tuple[object, Sequence[Hashable] | None, str]],
    people_a: int,
    people_b: int | None,
) -> tuple[list[tuple[int, int]], int]:
    """Links from both people of each pair to a node of its group; groups follow all people.

    Args:
        grouped: Pairs [pairs, 2], the group of each, and the name of the argument that gave them.
        people_a: Number of people on side a.
        people_b: Number of people on side b; None in one-sided sets.

    Returns:
        The links, and the number of nodes.

    Raises:
        ConfigurationError: The number of groups is not that of the pairs.
    """
    shift = 0 if people_b is None else people_a
    people = people_a + (people_b or 0)
    nodes: dict[Hashable, int] = {}
    links = []
    for given, groups, argument in grouped:
        if groups is None:
            continue
        pairs = np.asarray(() if given is None else given, np.int64).reshape(-1, 2).tolist()
        if len(groups) != len(pairs):
            pair = "rejected pair" if argument == "rejected_groups" else "match"
            raise ConfigurationError(
                f"`{argument}` needs one label per {pair}, {len(pairs)}, got {len(groups)}."
            )
        for (first, second), label in zip(pairs, groups, strict=True):
            if label is not None:
                node = nodes.setdefault(label, people + len(nodes))
                links += [(first, node), (second + shift, node)]
    return links, people + len(nodes)

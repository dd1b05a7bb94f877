"""Connected components of pairs, and their assignment to the parts of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pairmatch.core.arrays import Ints


def label_components(links: npt.ArrayLike, size: int) -> Ints:
    """Labels the connected components of an undirected graph.

    Args:
        links: [L, 2] node numbers; each row joins two nodes.
        size: Number of nodes.

    Returns:
        [size] int64: nodes with equal labels are connected. Labels count up in the order of each
        component's first node.
    """
    first, second = np.asarray(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def label_links(links: Ints, size: int) -> Ints:
    """[L] int64 component of each link: the number of the first node of its component.

    Links of disjoint sets of nodes therefore never share a label.

    Args:
        links: [L, 2] node numbers.
        size: Number of nodes.
    """
    labels = label_components(links, size)
    _, first = np.unique(labels, return_index=True)
    return first[labels[links[:, 0]]].astype(np.int64)


def assign_components(counts: Ints, sizes: Sequence[int]) -> Ints:
    """Assigns components to parts, the largest first, each to the part that is furthest from full.

    The distance is relative to the part's size, so that training does not absorb every large
    component. Components of a single pair come last and fill the gaps.

    Args:
        counts: [components] number of matches of each, in random order.
        sizes: Number of matches wanted in each part.

    Returns:
        [components] int64 number of each component's part.
    """
    missing = np.array(sizes, np.float64)
    target = np.maximum(missing, 1e-9)
    parts = np.empty(len(counts), np.int64)
    for index in np.argsort(-np.asarray(counts), kind="stable"):
        room = np.where(missing >= counts[index], missing / target, missing - 1e9)
        part = int(np.argmax(room))
        parts[index] = part
        missing[part] -= counts[index]
    return parts

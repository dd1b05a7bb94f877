"""Hard negatives: people who resemble a known partner, mined from the frozen features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors, check_count, unit_rows
from pairmatch.core.paired_features import PairedFeatures

#: Cosine of centered features from which two people count as the same (near-duplicate photos).
NEAR_DUPLICATE = 0.98
_PEOPLE = 256  # per block


def mine_negatives(data: PairedFeatures, count: int, *, skip: int = 0) -> tuple[Ints, Ints]:
    """The people who resemble a known partner most, without those who may be partners.

    Closeness is the largest cosine to any known partner, of features centered per side. Left out
    are known matches, open and rejected pairs; people of the unit (group, household, identical
    features that were joined) of either person; and near-duplicates of a partner. **A person
    close to a partner may be an unknown match**: the closer, the likelier; see
    [Hard negatives](../training.md#hard-negatives).

    Args:
        data: Training pairs.
        count: Maximum number of negatives per person with a match, at least 1.
        skip: Number of the closest people that are passed over, at least 0.

    Returns:
        [R, 2] int64 rows of side a and side b: for people of side a, closest first; and [R', 2] for
        people of side b. In one-sided sets, the second holds the same pairs in the other order.
    """
    count = check_count("mine_negatives(count=...)", count)
    forward = _of_side(data, count, skip, reverse=False)
    backward = _of_side(data, count, skip, reverse=True)
    return forward, backward[:, ::-1].copy()


def _of_side(data: PairedFeatures, count: int, skip: int, *, reverse: bool) -> Ints:
    """[R, 2] person of the asking side, and negative of the other side."""
    gallery = data.a if reverse or data.b is None else data.b
    units_a = data.units_a
    units_b = units_a if data.units_b is None else data.units_b
    asking, answering = (units_b, units_a) if reverse else (units_a, units_b)
    partners = _partners(data, data.matches, len(asking), reverse)
    known = _partners(data, data.decisions.pairs, len(asking), reverse)
    people = np.flatnonzero([len(rows) for rows in partners])
    vectors = unit_rows(gallery - gallery.mean(axis=0))
    mined = [np.empty((0, 2), np.int64)]
    for start in range(0, len(people), _PEOPLE):
        block = people[start : start + _PEOPLE]
        closeness = _closeness(vectors, [partners[person] for person in block])
        for person, row in zip(block.tolist(), closeness, strict=True):
            units = [asking[person], *answering[partners[person]]]
            row[np.isin(answering, units) | (row >= NEAR_DUPLICATE)] = -np.inf
            row[known[person]] = -np.inf
            if data.one_sided:
                row[person] = -np.inf
            order = np.argsort(-row, kind="stable")[: skip + count]
            chosen = order[np.isfinite(row[order])][skip:]
            mined.append(np.stack([np.full(len(chosen), person), chosen], axis=1))
    return np.concatenate(mined)


def _partners(data: PairedFeatures, pairs: Ints, people: int, reverse: bool) -> list[Ints]:
    """Rows of the other side that each person has a pair with."""
    if data.one_sided:
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
    first, second = (pairs[:, ::-1] if reverse else pairs).T
    order = np.argsort(first, kind="stable")
    ends = np.cumsum(np.bincount(first, minlength=people))
    return np.split(second[order], ends[:-1])


def _closeness(vectors: Vectors, partners: list[Ints]) -> npt.NDArray[np.float32]:
    """[people, gallery] largest cosine to any partner of each person."""
    starts = np.cumsum([0, *(len(rows) for rows in partners)])[:-1]
    cosines = vectors[np.concatenate(partners)] @ vectors.T
    closest: npt.NDArray[np.float32] = np.maximum.reduceat(cosines, starts, axis=0)
    return closest

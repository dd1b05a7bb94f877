"""Resampling of people of both sides: what `coverage.py` compares with two-way standard errors."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

_BEYOND = 1e6  # candidates ahead of a partner that was not drawn


def pigeonhole(table, weights):
    """R@10, MRR and median rank of every resample: the bootstrap of Owen (2007).

    People of both sides are drawn again, and every figure is that of the resampled people: a person
    who is drawn twice is twice a query, a partner and a candidate. Ranks beyond the 64th are taken
    from the table.

    Args:
        table: Q queries, with the candidates ahead of partners.
        weights: [units, resamples] float32, how often each unit is drawn.

    Returns:
        [3, resamples].
    """
    links = table.links
    rivals = links.rivals
    first = links.starts[:-1]
    row = np.repeat(np.arange(len(table)), np.diff(links.starts))
    direction = table["direction"][row]
    numbers = np.arange(len(row))
    query, partner = links.units[numbers, direction], links.units[numbers, 1 - direction]
    listed = np.repeat(numbers, np.diff(rivals.starts))
    shape = (len(row), len(weights))
    above = csr_array((np.ones(len(listed), np.float32), (listed, rivals.units)), shape=shape)
    ahead = above @ weights
    unlisted = rivals.ahead < 0
    ahead[unlisted] = np.maximum(table["ahead"][row[unlisted]], 65)[:, None]
    drawn = weights[partner]
    times = np.add.reduceat(drawn, first)
    best = np.minimum.reduceat(np.where(drawn > 0, ahead, _BEYOND), first)
    counts = weights[query[first]] * (times > 0)
    recall = np.add.reduceat(drawn * (ahead < 10), first) / np.maximum(times, 1)
    total = counts.sum(0)
    order = np.argsort(best, axis=0)
    passed = np.cumsum(np.take_along_axis(counts, order, 0), axis=0)
    middle = order[(passed < total / 2).sum(0), np.arange(len(total))]
    median = 1 + best[middle, np.arange(len(total))]
    return np.stack(
        [(counts * recall).sum(0) / total, (counts / (1 + best)).sum(0) / total, median]
    )


def draw_weights(rng, data, resamples):
    """[units, resamples] float32: how often each unit is drawn when each side is drawn again."""
    weights = np.zeros((int(data.units.max()) + 1, resamples), np.float32)
    for units in (data.units_a, data.units_b):
        draws = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), resamples)
        weights[units] = draws.T
    return weights


def sign_flips(differences, links, pushes, rng, flips=399):
    """p-values of a mean difference by two randomization tests with random signs of people.

    The first flips what belongs to each person: half of the differences of their links, and what
    they add as a candidate. Its null is that the parts of people are symmetric around 0. The second
    multiplies the difference of a link by the signs of both people; it has no place for candidates,
    and its null is that links of one person are uncorrelated.
    """
    counts = np.diff(links.starts)
    part = np.repeat(differences / counts / len(differences), counts).astype(np.float32)
    units = int(max(links.units.max(), pushes[0].max(initial=0))) + 1
    sums = np.bincount(links.units.ravel(), np.repeat(part, 2), units)
    sums += np.bincount(pushes[0], pushes[1][:, 0], units)
    signs = (2 * rng.integers(0, 2, (flips, units)) - 1).astype(np.float32)
    by_person = signs @ sums.astype(np.float32)
    by_link = (signs[:, links.units[:, 0]] * signs[:, links.units[:, 1]]) @ part
    observed = abs(differences.mean()) * (1 - 1e-12)
    return [(1 + np.sum(np.abs(drawn) >= observed)) / (1 + flips) for drawn in (by_person, by_link)]

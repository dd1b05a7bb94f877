"""The candidates that outrank partners: whose presence in the gallery moves the figures.

A person of a log counts three times: as a query, as a partner, and as a candidate of all others.
Two queries without a person in common still share their candidates, and a hub lowers both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import NO_POOL
from pairmatch.evaluation.ranks import TIE_TOLERANCE, Doubles, PartnerRanks

_MOST = 64  # candidates ahead of a partner; further ones move no figure by much
_BLOCK = 1024

#: Units of candidates, and [units, figures] what each adds to the figures by being a candidate.
Pushes = tuple[Ints, Doubles]


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The candidates ahead of each link's partner. L links.

    Attributes:
        ahead: [L] int64 number of candidates ahead of the partner; −1 where they are not listed.
        starts: [L + 1] int64: the candidates of link l are those from `starts[l]` to
            `starts[l + 1]`.
        units: [all candidates] int64 unit of each.
        galleries: [L] int64 number of the gallery: of one direction, and of one pool.
    """

    ahead: Ints
    starts: Ints
    units: Ints
    galleries: Ints

    @classmethod
    def of(
        cls, data: PairedFeatures, e_a: Vectors, e_b: Vectors, ranks: PartnerRanks, side: int
    ) -> Rivals:
        """Lists the candidates ahead of each partner that has few of them.

        Where a candidate was left out of the ranking (a known match, or a partner of another
        pool), the number differs and the link has no list.

        Args:
            data: People and matches.
            e_a: [N, K] float32 embeddings of side a.
            e_b: [M, K] float32 embeddings of side b; of all people as candidates, in one-sided
                sets.
            ranks: Ranks of the partners of one direction, R links.
            side: 0 if the queries are of side a, 1 if of side b.
        """
        queries, candidates = (e_b, e_a) if side else (e_a, e_b)
        units = data.units_a if side or data.units_b is None else data.units_b
        ahead = np.full(len(ranks.better), -1, np.int64)
        found = [np.empty((0, 2), np.int64)]
        for links, people in _blocks(data, ranks, side):
            asking = ranks.queries[links]
            gallery = torch.from_numpy(candidates if people is None else candidates[people])
            scores = torch.mm(torch.from_numpy(queries[asking]), gallery.T).numpy()
            above = scores > (ranks.scores[links] + np.float32(TIE_TOLERANCE))[:, None]
            if people is None:
                people = np.arange(len(candidates))
            if data.one_sided:
                above &= people[None, :] != asking[:, None]
            counts = above.sum(1)
            listed = counts == ranks.better[links]
            ahead[links[listed]] = counts[listed]
            row, column = np.nonzero(above[listed])
            found.append(np.stack([links[listed][row], units[people[column]]], axis=1))
        link, unit = np.concatenate(found).T
        order = np.argsort(link, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(link, minlength=len(ahead)))])
        return cls(ahead, starts, unit[order], 2 * ranks.pools + side)

    def select(self, links: Ints) -> Rivals:
        """The candidates ahead of some links, by number."""
        starts, index = take(self.starts, links)
        return Rivals(self.ahead[links], starts, self.units[index], self.galleries[links])

    @classmethod
    def concatenate(cls, parts: Sequence[Rivals]) -> Rivals:
        """The candidates of several tables' links, one after the other."""
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        return cls(
            np.concatenate([part.ahead for part in parts]),
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([part.units for part in parts]),
            np.concatenate([part.galleries for part in parts]),
        )

    def pushes(self, rows: Ints, figures: Sequence[str]) -> Pushes:
        """What each candidate adds to each figure, minus the mean of its gallery.

        It is summed over all partners that the candidate outranks. For MRR, it is the difference to
        a gallery without the candidate, which has the expectation of the effect of a random
        candidate. So has that of recall, but it would be 0 except at one rank: half the difference
        between one candidate more and one fewer ahead of the partner varies less.

        Args:
            rows: [L] int64 row of each link, ascending, from 0.
            figures: `MRR`, `R@K`, or others, to which candidates are taken to add nothing.
        """
        k = np.maximum(self.ahead, 0).astype(np.float64)
        share = 1 / np.bincount(rows)[rows]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        known = np.where(self.ahead < 0, np.inf, k)
        best = k == np.minimum.reduceat(known, first)[rows]
        counts = np.diff(self.starts)
        galleries, gallery = np.unique(np.repeat(self.galleries, counts), return_inverse=True)
        codes, place = np.unique(self.units * len(galleries) + gallery, return_inverse=True)
        total = np.zeros((len(codes), len(figures)))
        for figure, name in enumerate(figures):
            change = np.zeros(len(k))
            if name == "MRR":
                change = best / np.maximum(k * (k + 1), 1)
            elif name.startswith("R@"):
                change = share * ((k == int(name[2:])) + (k == int(name[2:]) - 1)) / 2
            total[:, figure] = -np.bincount(place, np.repeat(change, counts), len(codes))
        total /= rows[-1] + 1
        unit, gallery = np.divmod(codes, len(galleries))
        members = np.bincount(gallery)[:, None]
        sums = np.stack([np.bincount(gallery, column) for column in total.T], axis=1)
        return unit, total - (sums / members)[gallery]


def _blocks(
    data: PairedFeatures, ranks: PartnerRanks, side: int
) -> Iterator[tuple[Ints, Ints | None]]:
    """Links with few candidates ahead, and the candidates of their pool; None for all people."""
    few = np.flatnonzero(ranks.better <= _MOST)
    few = few[np.argsort(ranks.pools[few], kind="stable")]
    numbers, first = np.unique(ranks.pools[few], return_index=True)
    members = [] if data.pools is None else data.pools.people()
    for pool, links in zip(numbers.tolist(), np.split(few, first[1:]), strict=True):
        people = None if pool == NO_POOL else members[pool][1 - side]
        for start in range(0, len(links), _BLOCK):
            yield links[start : start + _BLOCK], people


def take(starts: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Starts and members of some groups, given where each group of a flat array starts."""
    counts = np.diff(starts)[chosen]
    new = np.concatenate([[0], np.cumsum(counts)])
    return new, np.arange(new[-1]) + np.repeat(starts[chosen] - new[:-1], counts)

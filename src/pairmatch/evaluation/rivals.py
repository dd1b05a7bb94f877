"""The candidates that outrank partners: whose presence in the gallery moves the figures.

A person of a log counts three times: as a query, as a partner, and as a candidate of all others.
Two queries without a person in common still share their candidates, and a hub lowers both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.paired_features import PairedFeatures
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
        sides: [L] int64 direction of the query: all candidates of a direction are of one side.
    """

    ahead: Ints
    starts: Ints
    units: Ints
    sides: Ints

    @classmethod
    def of(
        cls, data: PairedFeatures, e_a: Vectors, e_b: Vectors, ranks: PartnerRanks, side: int
    ) -> Rivals:
        """Lists the candidates ahead of each partner that has few of them.

        Where the rank was counted among other candidates than all (known matches are left out, or
        the pool is smaller), the number differs and the link has no list.

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
        few = np.flatnonzero(ranks.better <= _MOST)
        ahead = np.full(len(ranks.better), -1, np.int64)
        found = [np.empty((0, 2), np.int64)]
        gallery = torch.from_numpy(candidates).T
        for start in range(0, len(few), _BLOCK):
            links = few[start : start + _BLOCK]
            people = ranks.queries[links]
            scores = torch.mm(torch.from_numpy(queries[people]), gallery).numpy()
            above = scores > (ranks.scores[links] + np.float32(TIE_TOLERANCE))[:, None]
            if data.one_sided:
                above[np.arange(len(links)), people] = False
            counts = above.sum(1)
            listed = counts == ranks.better[links]
            ahead[links[listed]] = counts[listed]
            row, column = np.nonzero(above[listed])
            found.append(np.stack([links[listed][row], units[column]], axis=1))
        link, unit = np.concatenate(found).T
        starts = np.concatenate([[0], np.cumsum(np.bincount(link, minlength=len(ahead)))])
        return cls(ahead, starts, unit, np.full(len(ahead), side, np.int64))

    def select(self, links: Ints) -> Rivals:
        """The candidates ahead of some links, by number."""
        starts, index = take(self.starts, links)
        return Rivals(self.ahead[links], starts, self.units[index], self.sides[links])

    @classmethod
    def concatenate(cls, parts: Sequence[Rivals]) -> Rivals:
        """The candidates of several tables' links, one after the other."""
        counts = np.concatenate([np.diff(part.starts) for part in parts])
        return cls(
            np.concatenate([part.ahead for part in parts]),
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([part.units for part in parts]),
            np.concatenate([part.sides for part in parts]),
        )

    def pushes(self, rows: Ints, figures: Sequence[str]) -> Pushes:
        """What each candidate adds to each figure, minus the mean of its side.

        It is half the difference that one candidate more and one fewer ahead of the partner would
        make, summed over all partners that the candidate outranks.

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
        codes, place = np.unique(
            self.units * 2 + np.repeat(self.sides, counts), return_inverse=True
        )
        total = np.zeros((len(codes), len(figures)))
        for figure, name in enumerate(figures):
            change = np.zeros(len(k))
            if name == "MRR":
                change = best * (1 / np.maximum(k, 1) - 1 / (k + 2)) / 2
            elif name.startswith("R@"):
                change = share * ((k == int(name[2:])) + (k == int(name[2:]) - 1)) / 2
            total[:, figure] = -np.bincount(place, np.repeat(change, counts), len(codes))
        total /= rows[-1] + 1
        for side in (0, 1):
            members = codes % 2 == side
            if members.any():
                total[members] -= total[members].mean(0)
        return codes // 2, total


def take(starts: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Starts and members of some groups, given where each group of a flat array starts."""
    counts = np.diff(starts)[chosen]
    new = np.concatenate([[0], np.cumsum(counts)])
    return new, np.arange(new[-1]) + np.repeat(starts[chosen] - new[:-1], counts)

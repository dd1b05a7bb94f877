"""`PairedFeatures`: features of people and the pairs among them, split without sharing people."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pairmatch.core.arrays import (
    Floats,
    Ints,
    Vectors,
    check_sides,
    rows_that_match,
    to_numpy,
)
from pairmatch.core.candidates import People
from pairmatch.core.components import assign_components, label_components, label_links
from pairmatch.core.decisions import Decisions
from pairmatch.core.feature_blocks import FeatureBlock, check_blocks, feature_blocks
from pairmatch.core.outcomes import sort_by_outcome
from pairmatch.core.part import Part
from pairmatch.core.pools import Pools
from pairmatch.core.units import group_links, identical_labels, identical_links


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PairedFeatures:
    """Features of two sides (or one) and the matches among them: what learners and evaluators take.

    Made by `PairedFeatures.of` from arrays, or by `Matcher.paired_features` from people.

    Attributes:
        a: [N, D] float32 features of side a; of all people in one-sided sets.
        b: [M, D] float32 features of side b; None in one-sided sets.
        decisions: What each side said, of E = P + R + O pairs: first the P matches, then the R
            rejected pairs, then the O open ones, of which neither is known.
        ends: Positions in `decisions` at which the matches and the rejected pairs end: P, P + R.
        decision_components: [E] int64 component of each pair: pairs that are connected through
            people or groups share a label.
        units_a: [N] int64 unit of each person of side a: people of one group, and people with
            identical features if they are joined, share a label and are never separated.
        units_b: [M] int64 the same for side b, which may share units; None in one-sided sets.
        blocks: Columns of the features by source, such as a backbone and its pooler; at least one.
        pools: Who could have met whom, with the pool of each pair of `decisions`; None if all
            people of the other side are candidates.
        people: Who they are, for re-rankers that read profiles; None if it is not known.
    """

    a: Vectors
    b: Vectors | None
    decisions: Decisions
    ends: tuple[int, int]
    decision_components: Ints
    units_a: Ints
    units_b: Ints | None
    blocks: tuple[FeatureBlock, ...]
    pools: Pools | None = None
    people: People | None = None

    def __repr__(self) -> str:
        people = " + ".join(str(len(side)) for side in (self.a, self.b) if side is not None)
        return f"PairedFeatures({len(self)} matches, {people} people, {self.dim} features)"

    @classmethod
    def of(
        cls,
        features_a: Floats | Tensor,
        features_b: Floats | Tensor | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        rejected: Ints | Sequence[tuple[int, int]] | None = None,
        decisions: Decisions | None = None,
        pools: Pools | None = None,
        blocks: Sequence[FeatureBlock] | None = None,
        groups: Sequence[Hashable] | None = None,
        rejected_groups: Sequence[Hashable] | None = None,
        join_identical: bool = False,
        name: str = "features",
    ) -> PairedFeatures:
        """Validates arrays and finds the connected components.

        Args:
            features_a: [N, D], any numeric type; NumPy array or tensor.
            features_b: [M, D]; None for a one-sided set.
            matches: [P, 2] rows that match; by default row i matches row i, or those of `decisions`
                in which both said yes.
            rejected: [R, 2] rows of pairs in which either person declined; those of
                `decisions` with a no are added.
            decisions: What each side said; its pairs may include matches and rejected ones.
            pools: Who could have met whom; None if all people of the other side are candidates.
            blocks: Columns by source; None for one block of all columns.
            groups: One label (household, room) per row of `matches`, or of `decisions` if given.
            rejected_groups: The same per row of `rejected`; not together with `decisions`.
            join_identical: Whether people with identical features (photos) stay together.
            name: Name of the features in error messages.

        Raises:
            ConfigurationError: Shapes do not match, values are not finite, rows do not exist,
                decisions contradict outcomes, or blocks do not cover each column once.
        """
        check_sides(name, features_a, features_b)
        people_a = len(features_a)
        people_b = None if features_b is None else len(features_b)
        if matches is None and decisions is None:
            matches = rows_that_match(name, people_a, people_b)
        pairs, ends = sort_by_outcome(decisions, matches, rejected, (people_a, people_b))
        a = np.ascontiguousarray(to_numpy(features_a), np.float32)
        b = features_b
        if b is not None:
            b = np.ascontiguousarray(to_numpy(b), np.float32)
        grouped = [(matches, groups, "groups"), (rejected, rejected_groups, "rejected_groups")]
        if decisions is not None:
            grouped = [(decisions.pairs, groups, "groups")]
        links, nodes = group_links(grouped, people_a, people_b)
        if join_identical:
            links += identical_links(a, b)
        units = label_components(links, nodes)[: people_a + (people_b or 0)]
        if pools is not None:
            pools.check(people_a, people_b)
        return cls.of_units(a, b, pairs, ends, units, pools, check_blocks(blocks, a.shape[1]))

    @classmethod
    def of_units(
        cls,
        a: Vectors,
        b: Vectors | None,
        decisions: Decisions,
        ends: tuple[int, int],
        units: Ints,
        pools: Pools | None,
        blocks: tuple[FeatureBlock, ...],
    ) -> PairedFeatures:
        """Finds the components, which follow from the units of all people.

        Args:
            a: [N, D] float32 features of side a.
            b: [M, D] float32 features of side b; None in one-sided sets.
            decisions: Of all pairs, sorted by outcome.
            ends: Positions at which the matches and the rejected pairs end.
            units: [N + M] int64 unit of each person, counted from 0.
            pools: Who could have met whom; its pairs may have any order.
            blocks: Columns by source.
        """
        units_a, units_b = units[: len(a)], units[len(a) :]
        others = units_a if b is None else units_b
        links = np.stack([units_a[decisions.pairs[:, 0]], others[decisions.pairs[:, 1]]], axis=1)
        components = label_components(links, int(units.max(initial=-1)) + 1)[links[:, 0]]
        return cls(
            a,
            b,
            decisions,
            ends,
            components,
            units_a,
            None if b is None else units_b,
            blocks,
            None if pools is None else pools.of_pairs(decisions.pairs),
        )

    @property
    def matches(self) -> Ints:
        """[P, 2] int64 rows of a and of b that match."""
        return self.decisions.pairs[: self.ends[0]]

    @property
    def rejected(self) -> Ints:
        """[R, 2] int64 rows of pairs in which one person declined."""
        return self.decisions.pairs[self.ends[0] : self.ends[1]]

    @property
    def open(self) -> Ints:
        """[O, 2] int64 rows of pairs of which neither a match nor a rejection is known."""
        return self.decisions.pairs[self.ends[1] :]

    @property
    def components(self) -> Ints:
        """[P] int64 component of each match."""
        return self.decision_components[: self.ends[0]]

    @property
    def rejected_components(self) -> Ints:
        """[R] int64 component of each rejected pair."""
        return self.decision_components[self.ends[0] : self.ends[1]]

    @property
    def open_components(self) -> Ints:
        """[O] int64 component of each open pair."""
        return self.decision_components[self.ends[1] :]

    @property
    def one_sided(self) -> bool:
        """Whether any person may match any other: there is no side b."""
        return self.b is None

    @property
    def dim(self) -> int:
        """Width D of the features."""
        return int(self.a.shape[1])

    @property
    def galleries(self) -> tuple[int, ...]:
        """Number of candidates of each direction: (M, N), or (N − 1,) in one-sided sets."""
        return (len(self.a) - 1,) if self.b is None else (len(self.b), len(self.a))

    def __len__(self) -> int:
        """Number of matches."""
        return len(self.matches)

    def with_features(
        self, a: Vectors, b: Vectors | None, blocks: Sequence[FeatureBlock] | None = None
    ) -> PairedFeatures:
        """The same people and pairs with other features: [N, D'] and [M, D'] float32.

        Args:
            a: Features of side a.
            b: Features of side b; None in one-sided sets.
            blocks: Columns by source; None for one block of all columns.
        """
        return replace(self, a=a, b=b, blocks=check_blocks(blocks, a.shape[1]))

    def of_blocks(self, blocks: Sequence[FeatureBlock]) -> PairedFeatures:
        """The same people and pairs with the features of some blocks, in this order."""
        columns = np.concatenate([np.arange(block.start, block.stop) for block in blocks])
        kept = feature_blocks([block.name for block in blocks], [block.width for block in blocks])
        b = None if self.b is None else self.b[:, columns]
        return self.with_features(self.a[:, columns], b, kept)

    def with_units(self, units: Ints) -> PairedFeatures:
        """The same pairs with other units.

        Args:
            units: [N + M] int64 labels of the people of side a, then side b; [N] in one-sided sets.
        """
        labels = np.unique(units, return_inverse=True)[1].astype(np.int64)
        return PairedFeatures.of_units(
            self.a, self.b, self.decisions, self.ends, labels, self.pools, self.blocks
        )

    @property
    def units(self) -> Ints:
        """[N + M] int64 units of all people, side a first; [N] in one-sided sets."""
        if self.units_b is None:
            return self.units_a
        return np.concatenate([self.units_a, self.units_b])

    def unit_pairs(self, pairs: Ints) -> Ints:
        """[pairs, 2] int64 units of the two people of each pair of rows."""
        others = self.units_a if self.units_b is None else self.units_b
        return np.stack([self.units_a[pairs[:, 0]], others[pairs[:, 1]]], axis=1)

    @property
    def independent(self) -> int:
        """Number of units with a match, of the side that has fewer: 495 for 495 couples."""
        return min(len(np.unique(side)) for side in self.unit_pairs(self.matches).T)

    def identical_across_components(self) -> int:
        """Number of people whose features equal, bit for bit, those of another component's."""
        labels = identical_labels(self.a, self.b)
        component_of = np.full(len(labels), -1, np.int64)
        shift = 0 if self.b is None else len(self.a)
        component_of[self.decisions.pairs[:, 0]] = self.decision_components
        component_of[self.decisions.pairs[:, 1] + shift] = self.decision_components
        paired = component_of >= 0
        combinations = np.unique(np.stack([labels[paired], component_of[paired]], axis=1), axis=0)
        features, counts = np.unique(combinations[:, 0], return_counts=True)
        return int(np.isin(labels[paired], features[counts > 1]).sum())

    def part(self, components: Ints) -> Part:
        """The pairs of some components, by label."""
        labels = (self.components, self.rejected_components, self.open_components)
        return Part(*(np.flatnonzero(np.isin(kind, components)) for kind in labels))

    def positions(self, part: Part) -> Ints:
        """Positions in `decisions` of the pairs of a part: matches, rejected, open."""
        return np.concatenate(
            [part.matches, part.rejected + self.ends[0], part.open + self.ends[1]]
        )

    def people_of(self, part: Part) -> tuple[Ints, Ints]:
        """Rows of the people in the pairs of a part, by side, ascending."""
        pairs = self.decisions.pairs[self.positions(part)]
        if self.one_sided:
            rows = np.unique(pairs)
            return rows, rows
        return np.unique(pairs[:, 0]), np.unique(pairs[:, 1])

    def take(self, part: Part) -> PairedFeatures:
        """The pairs of a part, with their people."""
        rows_a, rows_b = self.people_of(part)
        kept = self.decisions.take(self.positions(part))
        first, second = kept.pairs.T
        pairs = np.stack([np.searchsorted(rows_a, first), np.searchsorted(rows_b, second)], axis=1)
        pools = None if self.pools is None else self.pools.take(rows_a, rows_b)
        return PairedFeatures(
            self.a[rows_a],
            None if self.b is None else self.b[rows_b],
            replace(kept, pairs=pairs.astype(np.int64)),
            (len(part), len(part) + len(part.rejected)),
            self._components_of(part),
            self.units_a[rows_a],
            None if self.units_b is None else self.units_b[rows_b],
            self.blocks,
            None if pools is None else pools.of_pairs(pairs),
            None if self.people is None else self.people.take(rows_a, rows_b),
        )

    def _components_of(self, part: Part) -> Ints:
        """Component labels of the pairs of a part: the same labels if no component is cut."""
        positions = self.positions(part)
        kept = self.decision_components[positions]
        if len(self.positions(self.part(np.unique(kept)))) == len(positions):
            return kept
        links = self.unit_pairs(self.decisions.pairs[positions])
        return label_links(links, int(self.units.max()) + 1)

    def parts(self, sizes: Sequence[int], *, seed: int = 0) -> list[Part]:
        """Splits the components so that each part holds about the requested number of matches.

        Args:
            sizes: Number of matches wanted in each part.
            seed: Seed for the order of components; equal seeds give equal parts.
        """
        labels, counts = np.unique(self.components, return_counts=True)
        without_match = np.setdiff1d(self.decision_components, labels)
        labels = np.append(labels, without_match)
        counts = np.append(counts, np.zeros(len(without_match), np.int64))
        order = np.random.default_rng(seed).permutation(len(labels))
        part = np.empty(len(labels), np.int64)
        part[order] = assign_components(counts[order], sizes)
        return [self.part(labels[part == index]) for index in range(len(sizes))]

    def inside(self, *, a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> Part:
        """The pairs whose people belong to chosen units.

        Args:
            a: [units] whether a pair may have a person of this unit on side a.
            b: [units] the same for side b.
        """
        kept = []
        for pairs in (self.matches, self.rejected, self.open):
            first, second = self.unit_pairs(pairs).T
            both = a[first] & b[second]
            if self.one_sided:
                both |= a[second] & b[first]
            kept.append(np.flatnonzero(both))
        return Part(*kept)

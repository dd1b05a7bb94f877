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
    check_matches,
    check_sides,
    rows_that_match,
    to_numpy,
)
from pairmatch.core.components import assign_components, label_components
from pairmatch.core.units import group_labels, group_links, identical_labels, identical_links

IDENTICAL_FEATURES_NOTE = (
    "{} people share identical features with people of other components (the same photo under two "
    "ids?): they may end up on both sides of a split. join_identical=True (--join-identical) keeps "
    "them together."
)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some pairs of a `PairedFeatures`.

    Attributes:
        matches: [p] int64 positions in `matches`, ascending.
        rejected: [r] int64 positions in `rejected`, ascending.
    """

    matches: Ints
    rejected: Ints

    def __len__(self) -> int:
        """Number of matches."""
        return len(self.matches)


@dataclass(frozen=True, slots=True, eq=False)
class PairedFeatures:
    """Features of two sides (or one) and the matches among them.

    Trainers, learners, evaluators, cross-validation and diagnostics all take this. Build it with
    `PairedFeatures.of` from arrays, or with `Matcher.paired_features` from people.

    Attributes:
        a: [N, D] float32 features of side a; of all people in one-sided sets.
        b: [M, D] float32 features of side b; None in one-sided sets.
        matches: [P, 2] int64 rows of a and of b that match, distinct.
        rejected: [R, 2] int64 rows of pairs in which one person declined.
        components: [P] int64 component of each match: matches that are connected through people or
            groups share a label.
        rejected_components: [R] int64 component of each rejected pair.
        units_a: [N] int64 unit of each person of side a: people of one group, and people with
            identical features if they are joined, share a label and are never separated.
        units_b: [M] int64 the same for side b, whose people may share units with those of side a;
            None in one-sided sets.
    """

    a: Vectors
    b: Vectors | None
    matches: Ints
    rejected: Ints
    components: Ints
    rejected_components: Ints
    units_a: Ints
    units_b: Ints | None

    @classmethod
    def of(
        cls,
        features_a: Floats | Tensor,
        features_b: Floats | Tensor | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        rejected: Ints | Sequence[tuple[int, int]] | None = None,
        groups: Sequence[Hashable] | None = None,
        rejected_groups: Sequence[Hashable] | None = None,
        join_identical: bool = False,
        name: str = "features",
    ) -> PairedFeatures:
        """Validates arrays and finds the connected components.

        Args:
            features_a: [N, D], any numeric type; NumPy array or tensor.
            features_b: [M, D]; None for a one-sided set.
            matches: [P, 2] rows that match; by default row i matches row i.
            rejected: [R, 2] rows of pairs in which one person declined.
            groups: One label per row of `matches` (household, room); None joins nothing.
            rejected_groups: The same per row of `rejected`.
            join_identical: Whether people with identical features (the same photo under two ids)
                stay together too.
            name: Name of the features in error messages.

        Raises:
            ConfigurationError: Shapes do not match, values are not finite, or rows do not exist.
        """
        check_sides(name, features_a, features_b)
        people_a = len(features_a)
        people_b = None if features_b is None else len(features_b)
        if matches is None:
            matches = rows_that_match(name, people_a, people_b)
        distinct = check_matches(matches, people_a, people_b)
        refused = np.empty((0, 2), np.int64)
        if rejected is not None and len(rejected):
            refused = check_matches(rejected, people_a, people_b)
        a = np.ascontiguousarray(to_numpy(features_a), np.float32)
        b = None
        if features_b is not None:
            b = np.ascontiguousarray(to_numpy(features_b), np.float32)
        labels = group_labels(np.asarray(matches), groups, distinct, "groups")
        refused_labels = group_labels(
            np.asarray(() if rejected is None else rejected),
            rejected_groups,
            refused,
            "rejected_groups",
        )
        links = group_links(
            np.concatenate([distinct, refused]), [*labels, *refused_labels], people_a, people_b
        )
        if join_identical:
            links += identical_links(a, b)
        people = people_a + (people_b or 0)
        size = people + len({*labels, *refused_labels} - {None})
        units = label_components(links, size)[:people]
        return cls._of_units(a, b, distinct, refused, units)

    @classmethod
    def _of_units(
        cls, a: Vectors, b: Vectors | None, matches: Ints, rejected: Ints, units: Ints
    ) -> PairedFeatures:
        """The components follow from the units of all people, side a first."""
        units_a, units_b = units[: len(a)], units[len(a) :]
        others = units_a if b is None else units_b
        pairs = np.concatenate([matches, rejected])
        links = np.stack([units_a[pairs[:, 0]], others[pairs[:, 1]]], axis=1)
        labels = label_components(links, int(units.max(initial=-1)) + 1)[links[:, 0]]
        return cls(
            a,
            b,
            matches,
            rejected,
            labels[: len(matches)],
            labels[len(matches) :],
            units_a,
            None if b is None else units_b,
        )

    @classmethod
    def joined(cls, parts: Sequence[PairedFeatures]) -> tuple[PairedFeatures, list[Ints]]:
        """Concatenates several sets, and returns the component labels of each."""
        first = parts[0]
        starts_a = np.cumsum([0, *(len(part.a) for part in parts)])
        starts_b = starts_a
        b = None
        if first.b is not None:
            starts_b = np.cumsum([0, *(len(part.b) for part in parts if part.b is not None)])
            b = np.concatenate([part.b for part in parts if part.b is not None])
        labels: list[Ints] = []
        matches, rejected, units_a, units_b = [], [], [], []
        people = 0
        for part, start_a, start_b in zip(parts, starts_a, starts_b, strict=False):
            shift = np.array([start_a, start_b])
            matches.append(part.matches + shift)
            rejected.append(part.rejected + shift)
            units_a.append(part.units_a + people)
            units_b.append((part.units_a if part.units_b is None else part.units_b) + people)
            people += int(part.units.max(initial=-1)) + 1
        units = np.concatenate([*units_a, *([] if b is None else units_b)])
        whole = cls._of_units(
            np.concatenate([part.a for part in parts]),
            b,
            np.concatenate(matches),
            np.concatenate(rejected),
            np.unique(units, return_inverse=True)[1].astype(np.int64),
        )
        ends = np.cumsum([len(part) for part in parts])[:-1]
        rejected_ends = np.cumsum([len(part.rejected) for part in parts])[:-1]
        for kept, refused in zip(
            np.split(whole.components, ends),
            np.split(whole.rejected_components, rejected_ends),
            strict=True,
        ):
            labels.append(np.unique(np.concatenate([kept, refused])))
        return whole, labels

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

    def with_features(self, a: Vectors, b: Vectors | None) -> PairedFeatures:
        """The same people and pairs with other features: [N, D'] and [M, D'] float32."""
        return replace(self, a=a, b=b)

    def with_units(self, units: Ints) -> PairedFeatures:
        """The same pairs with other units.

        Args:
            units: [N + M] int64 labels of the people of side a, then side b; [N] in one-sided sets.
        """
        labels = np.unique(units, return_inverse=True)[1].astype(np.int64)
        return PairedFeatures._of_units(self.a, self.b, self.matches, self.rejected, labels)

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
        for pairs, components in (
            (self.matches, self.components),
            (self.rejected, self.rejected_components),
        ):
            component_of[pairs[:, 0]] = components
            component_of[pairs[:, 1] + shift] = components
        paired = component_of >= 0
        combinations = np.unique(np.stack([labels[paired], component_of[paired]], axis=1), axis=0)
        features, counts = np.unique(combinations[:, 0], return_counts=True)
        return int(np.isin(labels[paired], features[counts > 1]).sum())

    def part(self, components: Ints) -> Part:
        """The pairs of some components, by label."""
        return Part(
            np.flatnonzero(np.isin(self.components, components)),
            np.flatnonzero(np.isin(self.rejected_components, components)),
        )

    def people_of(self, part: Part) -> tuple[Ints, Ints]:
        """Rows of the people in the pairs of a part, by side, ascending."""
        pairs = np.concatenate([self.matches[part.matches], self.rejected[part.rejected]])
        if self.one_sided:
            rows = np.unique(pairs)
            return rows, rows
        return np.unique(pairs[:, 0]), np.unique(pairs[:, 1])

    def take(self, part: Part) -> PairedFeatures:
        """The pairs of a part, with their people."""
        rows_a, rows_b = self.people_of(part)

        def renumber(pairs: Ints) -> Ints:
            columns = [np.searchsorted(rows_a, pairs[:, 0]), np.searchsorted(rows_b, pairs[:, 1])]
            return np.stack(columns, axis=1).astype(np.int64)

        components, rejected_components = self._components_of(part)
        return PairedFeatures(
            self.a[rows_a],
            None if self.b is None else self.b[rows_b],
            renumber(self.matches[part.matches]),
            renumber(self.rejected[part.rejected]),
            components,
            rejected_components,
            self.units_a[rows_a],
            None if self.units_b is None else self.units_b[rows_b],
        )

    def _components_of(self, part: Part) -> tuple[Ints, Ints]:
        """Component labels of the pairs of a part: the same labels if no component is cut."""
        kept = self.components[part.matches], self.rejected_components[part.rejected]
        present = np.unique(np.concatenate(kept))
        whole = self.part(present)
        if len(whole) == len(part) and len(whole.rejected) == len(part.rejected):
            return kept
        links = self.unit_pairs(
            np.concatenate([self.matches[part.matches], self.rejected[part.rejected]])
        )
        # Each component has the label of its first unit, so that no two parts share labels
        labels = label_components(links, int(self.units.max()) + 1)
        _, first = np.unique(labels, return_index=True)
        components = first[labels[links[:, 0]]].astype(np.int64)
        return components[: len(part)], components[len(part) :]

    def parts(self, sizes: Sequence[int], *, seed: int = 0) -> list[Part]:
        """Splits the components so that each part holds about the requested number of matches.

        Args:
            sizes: Number of matches wanted in each part.
            seed: Seed for the order of components; equal seeds give equal parts.
        """
        labels, counts = np.unique(self.components, return_counts=True)
        without_match = np.setdiff1d(self.rejected_components, labels)
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
        for pairs in (self.matches, self.rejected):
            first, second = self.unit_pairs(pairs).T
            both = a[first] & b[second]
            if self.one_sided:
                both |= a[second] & b[first]
            kept.append(np.flatnonzero(both))
        return Part(*kept)

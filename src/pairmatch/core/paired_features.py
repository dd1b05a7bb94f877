"""`PairedFeatures`: features of people and the pairs among them, split without sharing people."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
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
from pairmatch.core.errors import ConfigurationError

IDENTICAL_FEATURES_NOTE = (
    "{} people share identical features with people of other components (the same photo under two "
    "ids?): they may end up on both sides of a split. join_identical=True (--join-identical) keeps "
    "them together."
)


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
            groups share a label, and are never separated.
        rejected_components: [R] int64 component of each rejected pair.
    """

    a: Vectors
    b: Vectors | None
    matches: Ints
    rejected: Ints
    components: Ints
    rejected_components: Ints

    @classmethod
    def of(
        cls,
        features_a: Floats | Tensor,
        features_b: Floats | Tensor | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        rejected: Ints | Sequence[tuple[int, int]] | None = None,
        groups: Sequence[Hashable] | None = None,
        join_identical: bool = False,
        name: str = "features",
    ) -> PairedFeatures:
        """Validates arrays and finds the connected components.

        Args:
            features_a: [N, D], any numeric type; NumPy array or tensor.
            features_b: [M, D]; None for a one-sided set.
            matches: [P, 2] rows that match; by default row i matches row i.
            rejected: [R, 2] rows of pairs in which one person declined.
            groups: One label per row of `matches` (household, event, room); None joins nothing.
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
        labels = _group_labels(np.asarray(matches), groups, distinct)
        shift = np.array([0, 0 if people_b is None else people_a])
        links = [
            *(distinct + shift).tolist(),
            *(refused + shift).tolist(),
            *_group_links(distinct, labels, people_a + (people_b or 0)),
            *(_identical_links(a, b) if join_identical else []),
        ]
        size = people_a + (people_b or 0) + len({label for label in labels if label is not None})
        components = label_components(links, size)
        return cls(a, b, distinct, refused, components[distinct[:, 0]], components[refused[:, 0]])

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
        matches, rejected, components, rejected_components = [], [], [], []
        total = 0
        for part, start_a, start_b in zip(parts, starts_a, starts_b, strict=False):
            joint = np.concatenate([part.components, part.rejected_components])
            distinct, renumbered = np.unique(joint, return_inverse=True)
            shift = np.array([start_a, start_b])
            matches.append(part.matches + shift)
            rejected.append(part.rejected + shift)
            components.append(renumbered[: len(part.matches)] + total)
            rejected_components.append(renumbered[len(part.matches) :] + total)
            labels.append(np.arange(total, total + len(distinct)))
            total += len(distinct)
        whole = cls(
            np.concatenate([part.a for part in parts]),
            b,
            np.concatenate(matches),
            np.concatenate(rejected),
            np.concatenate(components),
            np.concatenate(rejected_components),
        )
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
        return PairedFeatures(
            a, b, self.matches, self.rejected, self.components, self.rejected_components
        )

    def identical_across_components(self) -> int:
        """Number of people whose features equal, bit for bit, those of another component's."""
        labels = _identical_labels(self.a, self.b)
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

    def people_of(self, labels: Ints) -> tuple[Ints, Ints]:
        """Rows of the people in the pairs of some components, by side, ascending."""
        pairs = np.concatenate(
            [
                self.matches[np.isin(self.components, labels)],
                self.rejected[np.isin(self.rejected_components, labels)],
            ]
        )
        if self.one_sided:
            rows = np.unique(pairs)
            return rows, rows
        return np.unique(pairs[:, 0]), np.unique(pairs[:, 1])

    def of_components(self, labels: Ints) -> PairedFeatures:
        """The pairs of some components, with their people."""
        kept = np.isin(self.components, labels)
        kept_rejected = np.isin(self.rejected_components, labels)
        rows_a, rows_b = self.people_of(labels)

        def renumber(pairs: Ints) -> Ints:
            columns = [np.searchsorted(rows_a, pairs[:, 0]), np.searchsorted(rows_b, pairs[:, 1])]
            return np.stack(columns, axis=1).astype(np.int64)

        return PairedFeatures(
            self.a[rows_a],
            None if self.b is None else self.b[rows_b],
            renumber(self.matches[kept]),
            renumber(self.rejected[kept_rejected]),
            self.components[kept],
            self.rejected_components[kept_rejected],
        )

    def parts(self, sizes: Sequence[int], *, seed: int = 0) -> list[Ints]:
        """Splits the components so that each part holds about the requested number of matches.

        Args:
            sizes: Number of matches wanted in each part.
            seed: Seed for the order of components; equal seeds give equal parts.

        Returns:
            Component labels of each part.
        """
        labels, counts = np.unique(self.components, return_counts=True)
        without_match = np.setdiff1d(self.rejected_components, labels)
        labels = np.append(labels, without_match)
        counts = np.append(counts, np.zeros(len(without_match), np.int64))
        order = np.random.default_rng(seed).permutation(len(labels))
        part = np.empty(len(labels), np.int64)
        part[order] = assign_components(counts[order], sizes)
        return [labels[part == index] for index in range(len(sizes))]

    def folds(self, k: int, *, seed: int = 0) -> list[Ints]:
        """Component labels of k folds of about equal size.

        Raises:
            ConfigurationError: `k` is below 2, or above the number of components with a match.
        """
        available = len(np.unique(self.components))
        if not 2 <= k <= available:
            raise ConfigurationError(
                "The number of folds must be from 2 to the number of components with a match, "
                f"{available}; got {k}."
            )
        share, rest = divmod(len(self), k)
        return self.parts([share + (fold < rest) for fold in range(k)], seed=seed)


def _identical_labels(a: Vectors, b: Vectors | None) -> Ints:
    """Row of the first person with the same features, for all people of side a, then side b."""
    first: dict[bytes, int] = {}
    rows = [row.tobytes() for side in (a, b) if side is not None for row in side]
    return np.array([first.setdefault(row, index) for index, row in enumerate(rows)], np.int64)


def _identical_links(a: Vectors, b: Vectors | None) -> list[list[int]]:
    labels = _identical_labels(a, b)
    return [[row, label] for row, label in enumerate(labels.tolist()) if row != label]


def _group_labels(
    given: Ints, groups: Sequence[Hashable] | None, distinct: Ints
) -> list[Hashable | None]:
    """The group of each distinct match."""
    labels: list[Hashable | None] = [None] * len(distinct)
    if groups is None:
        return labels
    if len(groups) != len(given):
        raise ConfigurationError(
            f"`groups` needs one label per match, {len(given)}, got {len(groups)}."
        )
    rows = {tuple(pair): row for row, pair in enumerate(distinct.tolist())}
    for pair, group in zip(given.tolist(), groups, strict=True):
        labels[rows[tuple(pair)]] = group
    return labels


def _group_links(
    matches: Ints, labels: Sequence[Hashable | None], people: int
) -> list[tuple[int, int]]:
    """Links from each match to a node of its group; group nodes follow those of people."""
    names = dict.fromkeys(label for label in labels if label is not None)
    nodes = {name: people + index for index, name in enumerate(names)}
    return [
        (row, nodes[label])
        for row, label in zip(matches[:, 0].tolist(), labels, strict=True)
        if label is not None
    ]

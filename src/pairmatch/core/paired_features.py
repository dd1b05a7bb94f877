"""Features of people with the pairs among them, and how they are parted so that no one stands in two parts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pairmatch.core.arrays import Floats, Ints, check_matches, check_sides
from pairmatch.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, eq=False)
class PairedFeatures:
    """Features of two sides (or of one) and the matches among them: what learners learn from and are tested on.

    Attributes:
        a: [N, D] float32 features of side a; of everybody, in one-sided sets.
        b: [M, D] float32 features of side b; None in one-sided sets.
        matches: [P, 2] int64 rows of a and of b that match, distinct.
        rejected: [R, 2] int64 rows where one of the two said no.
        components: [P] int64: matches of one label are joined through people or groups, and stay
            together.
        rejected_components: [R] int64 the same for `rejected`.
    """

    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32] | None
    matches: Ints
    rejected: Ints
    components: Ints
    rejected_components: Ints

    @classmethod
    def of(
        cls,
        features_a: Floats,
        features_b: Floats | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        rejected: Ints | Sequence[tuple[int, int]] | None = None,
        groups: Sequence[Hashable] | None = None,
        join_identical: bool = False,
    ) -> PairedFeatures:
        """Checks arrays and joins pairs that must stay together.

        Args:
            features_a: [N, D], any numbers.
            features_b: [M, D]; None for a one-sided set.
            matches: [P, 2] rows that match; by default row i matches row i.
            rejected: [R, 2] rows where one of the two said no.
            groups: One label per row of `matches` (a household, an event, a room); None as a label
                joins nothing.
            join_identical: People with identical features (the same photo under two ids) stay
                together too.

        Raises:
            ConfigurationError: Shapes that do not fit, values that are not finite, rows that do not
                exist.
        """
        given = np.asarray(check_sides("features", features_a, features_b, matches))
        people_b = None if features_b is None else len(features_b)
        known = check_matches(given, len(features_a), people_b)
        labels: list[Hashable | None] = [None] * len(known)
        if groups is not None:
            if len(groups) != len(given):
                raise ConfigurationError(
                    f"`groups` needs one label per match, {len(given)}, got {len(groups)}."
                )
            place = {tuple(pair): row for row, pair in enumerate(known.tolist())}
            for pair, group in zip(given.tolist(), groups, strict=True):
                labels[place[tuple(pair)]] = group
        refused = np.empty((0, 2), np.int64)
        if rejected is not None and len(rejected):
            refused = check_matches(rejected, len(features_a), people_b)
        a = np.ascontiguousarray(features_a, np.float32)
        b = None if features_b is None else np.ascontiguousarray(features_b, np.float32)
        same = _identical(a, b)[1] if join_identical else []
        joined = _components(known, refused, labels, same, len(a), people_b)
        return cls(
            a,
            b,
            known,
            refused,
            *joined,
        )

    @classmethod
    def joined(cls, parts: Sequence[PairedFeatures]) -> tuple[PairedFeatures, list[Ints]]:
        """Several sets as one, people of one after those of the other, and the labels of each set's components."""
        shift_a = np.cumsum([0, *(len(part.a) for part in parts)])
        shift_b = (
            shift_a
            if parts[0].b is None
            else np.cumsum([0, *(len(part.b) for part in parts if part.b is not None)])
        )
        labels, total = [], 0
        columns: list[list[Ints]] = [[], [], [], []]
        for part, a, b in zip(parts, shift_a, shift_b, strict=False):
            known, names = np.unique(
                np.concatenate([part.components, part.rejected_components]), return_inverse=True
            )
            labels.append(np.arange(total, total + len(known)))
            shift = np.array([a, b])
            matched, refused = (
                names[: len(part.matches)] + total,
                names[len(part.matches) :] + total,
            )
            for column, values in zip(
                columns,
                (part.matches + shift, part.rejected + shift, matched, refused),
                strict=True,
            ):
                column.append(values)
            total += len(known)
        b_rows = (
            None
            if parts[0].b is None
            else np.concatenate([part.b for part in parts if part.b is not None])
        )
        return cls(
            np.concatenate([part.a for part in parts]), b_rows, *map(np.concatenate, columns)
        ), labels

    @property
    def one_sided(self) -> bool:
        """Anyone may match anyone: there is no side b."""
        return self.b is None

    def __len__(self) -> int:
        """Number of matches."""
        return len(self.matches)

    def identical_across_components(self) -> int:
        """Number of people whose features equal those of somebody in another component, to the last bit."""
        labels, _ = _identical(self.a, self.b)
        of_person = np.full(len(labels), -1, np.int64)
        shift = 0 if self.b is None else len(self.a)
        for pairs, components in (
            (self.matches, self.components),
            (self.rejected, self.rejected_components),
        ):
            of_person[pairs[:, 0]] = of_person[pairs[:, 1] + shift] = components
        seen: dict[int, set[int]] = {}
        for label, component in zip(labels.tolist(), of_person.tolist(), strict=True):
            if component >= 0:
                seen.setdefault(label, set()).add(component)
        mixed = [label for label, components in seen.items() if len(components) > 1]
        return int(np.isin(labels[of_person >= 0], mixed).sum())

    def of_components(self, labels: Ints) -> PairedFeatures:
        """The pairs of some components, with their people."""
        matches = self.matches[np.isin(self.components, labels)]
        kept = np.isin(self.rejected_components, labels)
        rejected = self.rejected[kept]
        both = np.concatenate([matches, rejected])
        rows_a = np.unique(both) if self.one_sided else np.unique(both[:, 0])
        rows_b = rows_a if self.one_sided else np.unique(both[:, 1])

        def renamed(pairs: Ints) -> Ints:
            columns = [np.searchsorted(rows_a, pairs[:, 0]), np.searchsorted(rows_b, pairs[:, 1])]
            return np.stack(columns, axis=1).astype(np.int64)

        return PairedFeatures(
            self.a[rows_a],
            None if self.b is None else self.b[rows_b],
            renamed(matches),
            renamed(rejected),
            self.components[np.isin(self.components, labels)],
            self.rejected_components[kept],
        )

    def parts(self, sizes: Sequence[int], *, seed: int = 0) -> list[Ints]:
        """Labels of components, parted so that the number of matches in each part comes as close as it can.

        Args:
            sizes: Matches wanted in each part.
            seed: Equal seeds give equal parts.
        """
        labels, counts = np.unique(self.components, return_counts=True)
        extra = np.setdiff1d(self.rejected_components, labels)
        labels, counts = np.append(labels, extra), np.append(counts, np.zeros(len(extra), np.int64))
        order = np.random.default_rng(seed).permutation(len(labels))
        part = np.empty(len(labels), np.int64)
        part[order] = assign_components(counts[order], sizes)
        return [labels[part == index] for index in range(len(sizes))]

    def folds(self, k: int, *, seed: int = 0) -> list[Ints]:
        """Labels of the components of k folds of about equal size.

        Raises:
            ConfigurationError: Fewer than 2 folds, or more than there are components with a match.
        """
        available = len(np.unique(self.components))
        if not 2 <= k <= available:
            raise ConfigurationError(
                f"The number of folds must be from 2 to the number of components with a match, {available}; got {k}."
            )
        share, rest = divmod(len(self), k)
        return self.parts([share + (fold < rest) for fold in range(k)], seed=seed)


def _identical(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32] | None
) -> tuple[Ints, list[tuple[int, int]]]:
    """For everybody, side b after side a.

    The first with the same features; and who is not that first one.
    """
    first: dict[bytes, int] = {}
    rows = [row.tobytes() for side in (a, b) if side is not None for row in side]
    labels = np.array([first.setdefault(row, index) for index, row in enumerate(rows)], np.int64)
    return labels, [(index, int(label)) for index, label in enumerate(labels) if index != label]


def _components(
    matches: Ints,
    rejected: Ints,
    groups: Sequence[Hashable | None],
    same: Sequence[tuple[int, int]],
    people_a: int,
    people_b: int | None,
) -> tuple[Ints, Ints]:
    shift = 0 if people_b is None else people_a
    people = people_a + (people_b or 0)
    names = {
        group: people + index
        for index, group in enumerate(dict.fromkeys(g for g in groups if g is not None))
    }
    links = [(a, b + shift) for a, b in [*matches.tolist(), *rejected.tolist()]]
    links += [
        (a, names[group])
        for (a, _), group in zip(matches.tolist(), groups, strict=True)
        if group is not None
    ]
    rows, columns = np.array([*links, *same]).T
    size = people + len(names)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels[matches[:, 0]], labels[rejected[:, 0]]


def assign_components(counts: Ints, sizes: Sequence[int]) -> Ints:
    """[components] int64: the part of each, largest first, each where most is missing; single pairs fill up.

    Args:
        counts: [components] matches of each, in a random order.
        sizes: Matches wanted in each part.
    """
    missing = np.array(sizes, np.float64)
    # Where most is missing in proportion: training does not swallow every large component
    target = np.maximum(missing, 1e-9)
    place = np.empty(len(counts), np.int64)
    for index in np.argsort(-np.asarray(counts), kind="stable"):
        part = int(np.argmax(np.where(missing >= counts[index], missing / target, missing - 1e9)))
        place[index] = part
        missing[part] -= counts[index]
    return place

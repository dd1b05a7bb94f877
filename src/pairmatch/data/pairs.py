"""`Pairs`: people, who matched whom, and splits in which nobody stands on two sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.paired_features import assign_components
from pairmatch.core.types import Pair, Profile
from pairmatch.data.reading import read_pairs

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Profiles and the pairs among them.

    Build it with [`read`][pairmatch.data.pairs.Pairs.read] from files or with
    [`of`][pairmatch.data.pairs.Pairs.of] from objects: both check it.

    Attributes:
        profiles: People by id; those of the pairs.
        pairs: Matches, and rejections where the app knows them. A person may stand in several.
        sides: 2: a's match b's, each side is the other's gallery. 1: anyone may match anyone, the
            gallery of a person is everybody else.
    """

    profiles: Mapping[str, Profile]
    pairs: tuple[Pair, ...]
    sides: Literal[1, 2] = 2

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        images: str | Path | None = None,
        profiles: str | Path | None = None,
        sides: Literal[1, 2] = 2,
        check_images: bool = True,
        progress: bool = False,
    ) -> Pairs:
        """Reads a pairs file, with the profiles in it or in a file of their own.

        Args:
            path: `.csv`, `.parquet` or `.jsonl` with the columns `id_a, image_a, id_b, image_b` and
                optionally `text_a, text_b, outcome, group`; other columns that end in `_a` or `_b`
                become attributes.
            images: Folder that photo paths are relative to and may not leave; by default the file's
                own.
            profiles: File with the columns `id, image` (several photos separated by `;`) and
                optionally `text` and attributes; the pairs file then needs `id_a, id_b` alone.
            sides: 2, or 1 where anyone may match anyone.
            check_images: Decodes every photo to make sure that it can be read.
            progress: Shows a progress bar.

        Raises:
            DataError: Every problem of the files at once, each with file, line and column.
        """
        _check_sides(sides)
        found, pairs = read_pairs(
            Path(path),
            images=None if images is None else Path(images),
            profiles=None if profiles is None else Path(profiles),
            sides=sides,
            check_images=check_images,
            progress=progress,
        )
        return cls._of_known(found, pairs, sides)

    @classmethod
    def of(
        cls, profiles: Iterable[Profile], pairs: Iterable[Pair], *, sides: Literal[1, 2] = 2
    ) -> Pairs:
        """Pairs of objects in memory.

        Raises:
            DataError: Every inconsistency at once: an unknown id, an id given twice, a person
                paired with themself or on both sides, a pair given twice, an unknown outcome.
        """
        _check_sides(sides)
        people: dict[str, Profile] = {}
        problems = []
        for profile in profiles:
            if profile.id in people:
                problems.append(f"the id {profile.id!r} is given twice.")
            people[profile.id] = profile
        pairs = tuple(pairs)
        seen: set[tuple[str, ...]] = set()
        sides_of: dict[str, str] = {}
        for index, pair in enumerate(pairs):
            key = (pair.a, pair.b) if sides == 2 else tuple(sorted((pair.a, pair.b)))
            if pair.outcome not in ("match", "rejected"):
                problems.append(
                    f"pair {index}: the outcome {pair.outcome!r} is neither 'match' nor 'rejected'."
                )
            if pair.a == pair.b:
                problems.append(f"pair {index}: {pair.a!r} is paired with themself.")
            elif key in seen:
                problems.append(f"pair {index}: {pair.a!r}, {pair.b!r} is given twice.")
            seen.add(key)
            for side, person in (("a", pair.a), ("b", pair.b)):
                if person not in people:
                    problems.append(f"pair {index}: there is no profile {person!r}.")
                if sides == 2 and sides_of.setdefault(person, side) != side and pair.a != pair.b:
                    problems.append(f"pair {index}: {person!r} stands on both sides; use sides=1.")
        if problems:
            raise DataError(f"{len(problems)} problems in {len(pairs)} pairs:", problems)
        return cls._of_known(people, pairs, sides)

    @classmethod
    def _of_known(
        cls, people: Mapping[str, Profile], pairs: Iterable[Pair], sides: Literal[1, 2]
    ) -> Pairs:
        pairs = tuple(pairs)
        ids = dict.fromkeys(person for pair in pairs for person in (pair.a, pair.b))
        return cls({person: people[person] for person in ids}, pairs, sides)

    def __len__(self) -> int:
        """Number of matches."""
        return len(self.matches)

    def __repr__(self) -> str:
        rejected = f", {len(self.rejected)} rejected" if len(self.rejected) else ""
        return (
            f"Pairs({len(self)} matches{rejected}, {len(self.profiles)} people, sides={self.sides})"
        )

    @property
    def people(self) -> tuple[Profile, ...]:
        """Everybody, in order of first appearance."""
        return tuple(self.profiles.values())

    @cached_property
    def ids_a(self) -> tuple[str, ...]:
        """Ids of side a, in order of first appearance; of everybody in one-sided sets."""
        return (
            tuple(self.profiles)
            if self.sides == 1
            else tuple(dict.fromkeys(pair.a for pair in self.pairs))
        )

    @cached_property
    def ids_b(self) -> tuple[str, ...]:
        """Ids of side b, in order of first appearance; of everybody in one-sided sets."""
        return (
            tuple(self.profiles)
            if self.sides == 1
            else tuple(dict.fromkeys(pair.b for pair in self.pairs))
        )

    @cached_property
    def matches(self) -> Ints:
        """[P, 2] int64: rows in `ids_a` and `ids_b` of every match."""
        return self._rows("match")

    @cached_property
    def rejected(self) -> Ints:
        """[R, 2] int64: the same for rejections."""
        return self._rows("rejected")

    def _rows(self, outcome: str) -> Ints:
        row_a = {person: row for row, person in enumerate(self.ids_a)}
        row_b = row_a if self.sides == 1 else {person: row for row, person in enumerate(self.ids_b)}
        rows = [(row_a[pair.a], row_b[pair.b]) for pair in self.pairs if pair.outcome == outcome]
        return np.array(rows, np.int64).reshape(-1, 2)

    def subset(self, indices: Iterable[int]) -> Pairs:
        """The pairs at these positions of `pairs`, with their people."""
        return self._of_known(self.profiles, [self.pairs[index] for index in indices], self.sides)

    def components(self) -> Ints:
        """[number of pairs] int64.

        Pairs of one label are joined through people or groups, and stay together.
        """
        nodes: dict[tuple[str, str], int] = {}
        rows, columns = [], []
        for index, pair in enumerate(self.pairs):
            names = [("person", pair.a), ("person", pair.b)]
            if pair.group is not None:
                names.append(("group", pair.group))
            for name in names:
                rows.append(index)
                columns.append(nodes.setdefault(name, len(nodes)) + len(self.pairs))
        size = len(self.pairs) + len(nodes)
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size))
        return connected_components(links, directed=False)[1][: len(self.pairs)].astype(np.int64)

    def split(
        self, train: float = 0.70, validation: float = 0.15, *, seed: int = 0
    ) -> tuple[Pairs, Pairs, Pairs]:
        """Training, validation and test pairs by person: nobody, and no group, stands in two of them.

        Sizes are counted in matches: floor, floor, the rest, so that 495 disjoint pairs give 346,
        74 and 75. Where people stand in several pairs, whole components are placed so that sizes
        come as close as they can.

        Args:
            train: Share of the matches, above 0.
            validation: Share of the matches, at least 0; together below or equal 1.
            seed: Decides who goes where; equal seeds give equal splits.

        Raises:
            ConfigurationError: Shares that cannot be.
            DataError: A split with a share came out empty.
        """
        if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
            raise ConfigurationError(
                f"`split(train, validation)` needs shares with 0 < train, 0 ≤ validation and a sum of at most 1, got "
                f"{train} and {validation}."
            )
        total = len(self)
        sizes = [int(total * train + 1e-9), int(total * validation + 1e-9)]
        sizes.append(total - sum(sizes))
        if train + validation > 1 - 1e-9:
            sizes[0 if validation == 0 else 1] += sizes[2]
            sizes[2] = 0
        parts = self._place(sizes, seed)
        shares = (train, validation, max(0.0, 1 - train - validation))
        for name, part, share in zip(
            ("training", "validation", "test"), parts, shares, strict=True
        ):
            if share > 1e-9 and not any(self.pairs[index].outcome == "match" for index in part):
                raise DataError(
                    f"The {name} split came out empty: {total} matches fall into {len(set(self.components()))} "
                    "components of people and groups that must stay together. More pairs, or other shares, are needed."
                )
        first, second, third = (self.subset(part) for part in parts)
        return first, second, third

    def folds(self, k: int, *, seed: int = 0) -> list[Ints]:
        """k groups of positions in `pairs`, of about equal size, that share nobody and no group.

        Raises:
            ConfigurationError: Fewer than 2 folds, or more than there are components with a match.
        """
        labels = self.components()
        available = len(
            {
                label
                for label, pair in zip(labels, self.pairs, strict=True)
                if pair.outcome == "match"
            }
        )
        if not 2 <= k <= available:
            raise ConfigurationError(
                f"`folds(k)` must be from 2 to the number of components with a match, {available}; got {k}."
            )
        share, rest = divmod(len(self), k)
        return self._place([share + (fold < rest) for fold in range(k)], seed)

    def _place(self, sizes: Sequence[int], seed: int) -> list[Ints]:
        """Places components, largest first, each where most is missing.

        Single pairs come last and fill up.
        """
        labels = self.components()
        counts = np.bincount(
            labels[[pair.outcome == "match" for pair in self.pairs]],
            minlength=labels.max(initial=-1) + 1,
        )
        # Order by content, not by row, so that a shuffled file gives the same split
        names: dict[int, tuple[str, str]] = {}
        for label, pair in zip(labels.tolist(), self.pairs, strict=True):
            names[label] = min(names.get(label, (pair.a, pair.b)), (pair.a, pair.b))
        order = np.array(sorted(names, key=lambda label: names[label]), np.int64)
        order = np.random.default_rng(seed).permutation(order)
        place = np.empty(len(counts), np.int64)
        place[order] = assign_components(counts[order], sizes)
        where = place[labels]
        return [np.flatnonzero(where == part) for part in range(len(sizes))]


def _check_sides(sides: int) -> None:
    if sides not in (1, 2):
        raise ConfigurationError(f"`sides` is 1 or 2, got {sides!r}.")

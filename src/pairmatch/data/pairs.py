"""`Pairs`: people, their matches and rejections, and splits without shared people."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.components import assign_components, label_components
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import has_surrogates
from pairmatch.core.types import Pair, Profile
from pairmatch.data.pair_rows import OUTCOMES
from pairmatch.data.photos import PhotoOptions
from pairmatch.data.reading import read_pairs


@dataclass(frozen=True)
class Pairs:
    """Profiles and the pairs among them.

    Create it from files with [`read`][pairmatch.data.pairs.Pairs.read] or from objects with
    [`of`][pairmatch.data.pairs.Pairs.of]: both validate their input.

    Attributes:
        profiles: Profiles of the people in the pairs, by id.
        pairs: Matches, and rejections if they are known. A person may be in several pairs.
        sides: 2 if people of side a match people of side b, so that each side is the gallery of the
            other; 1 if anyone may match anyone, so that all other people are a person's gallery.
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
        follow_links: bool = False,
        keep_words: Collection[str] = (),
        progress: bool = False,
    ) -> Pairs:
        """Reads a pairs file, and optionally a profiles file.

        Args:
            path: Path to a `.csv`, `.parquet` or `.jsonl` file with the columns `id_a, image_a,
                id_b, image_b` and optionally `text_a, text_b, outcome, group`; other columns that
                end in `_a` or `_b` become attributes.
            images: Folder that photo paths are relative to and must not leave. Default: the folder
                of the file that names the photos.
            profiles: Path to a file with the columns `id, image` (several photos separated by `;`)
                and optionally `text` and attributes; the pairs file then needs only `id_a, id_b`.
            sides: 2, or 1 if anyone may match anyone.
            check_images: Whether to decode every photo, to make sure that it can be read.
            follow_links: Whether links may lead out of the folder of the photos.
            keep_words: Words that are values although they usually stand for a missing one, such as
                `NA` for Namibia.
            progress: Whether to show a progress bar.

        Raises:
            ConfigurationError: `keep_words` has a word that is always a value.
            DataError: The files have problems; the error lists all of them with file, line and
                column.
        """
        _check_sides(sides)
        described = path if profiles is None else profiles
        folder = Path(described).parent if images is None else Path(images)
        people, pairs = read_pairs(
            Path(path),
            photos=PhotoOptions(folder, follow_links, check_images, progress),
            profiles=None if profiles is None else Path(profiles),
            sides=sides,
            keep_words=keep_words,
        )
        return cls._select(people, pairs, sides)

    @classmethod
    def of(
        cls, profiles: Iterable[Profile], pairs: Iterable[Pair], *, sides: Literal[1, 2] = 2
    ) -> Pairs:
        """Creates pairs from objects.

        Raises:
            DataError: The objects are inconsistent: an unknown id, a duplicate id or pair, ids that
                are equal except for their Unicode normal form, a person paired with itself or on
                both sides, an unknown outcome. The error lists all problems.
        """
        _check_sides(sides)
        people: dict[str, Profile] = {}
        problems = []
        for profile in profiles:
            if profile.id in people:
                problems.append(f"the id {profile.id!r} is given twice.")
            people[profile.id] = profile
        forms, form_problems = _normal_forms(people)
        problems += form_problems
        pairs = tuple(pairs)
        seen: set[tuple[str, ...]] = set()
        sides_of: dict[str, str] = {}
        for index, pair in enumerate(pairs):
            key = (pair.a, pair.b) if sides == 2 else tuple(sorted((pair.a, pair.b)))
            if pair.outcome not in OUTCOMES:
                problems.append(
                    f"pair {index}: the outcome {pair.outcome!r} is neither 'match' nor 'rejected'."
                )
            if pair.a == pair.b:
                problems.append(f"pair {index}: {pair.a!r} is paired with itself.")
            elif key in seen:
                problems.append(f"pair {index}: {pair.a!r}, {pair.b!r} is given twice.")
            seen.add(key)
            for side, person in (("a", pair.a), ("b", pair.b)):
                if person not in people:
                    other = forms.get(unicodedata.normalize("NFC", person))
                    form = f" {other!a} has the same characters." if other else ""
                    problems.append(f"pair {index}: there is no profile {person!r}.{form}")
                if sides == 2 and sides_of.setdefault(person, side) != side and pair.a != pair.b:
                    problems.append(f"pair {index}: {person!r} is on both sides; use sides=1.")
        if problems:
            raise DataError(f"{len(problems)} problems in {len(pairs)} pairs:", problems)
        return cls._select(people, pairs, sides)

    @classmethod
    def _select(
        cls, people: Mapping[str, Profile], pairs: Iterable[Pair], sides: Literal[1, 2]
    ) -> Pairs:
        """Valid pairs, with the profiles of their people."""
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
        """All people, in order of first appearance."""
        return tuple(self.profiles.values())

    @cached_property
    def ids_a(self) -> tuple[str, ...]:
        """Ids of side a, in order of first appearance; of all people if `sides` is 1."""
        if self.sides == 1:
            return tuple(self.profiles)
        return tuple(dict.fromkeys(pair.a for pair in self.pairs))

    @cached_property
    def ids_b(self) -> tuple[str, ...]:
        """Ids of side b, in order of first appearance; of all people if `sides` is 1."""
        if self.sides == 1:
            return tuple(self.profiles)
        return tuple(dict.fromkeys(pair.b for pair in self.pairs))

    @cached_property
    def matches(self) -> Ints:
        """[P, 2] int64 positions in `ids_a` and `ids_b` of each match."""
        return self._rows("match")

    @cached_property
    def rejected(self) -> Ints:
        """[R, 2] int64 positions in `ids_a` and `ids_b` of each rejection."""
        return self._rows("rejected")

    def _rows(self, outcome: str) -> Ints:
        row_a = {person: row for row, person in enumerate(self.ids_a)}
        row_b = {person: row for row, person in enumerate(self.ids_b)}
        rows = [(row_a[pair.a], row_b[pair.b]) for pair in self.pairs if pair.outcome == outcome]
        return np.array(rows, np.int64).reshape(-1, 2)

    def subset(self, indices: Iterable[int]) -> Pairs:
        """Pairs at these positions of `pairs`, with their people."""
        return self._select(self.profiles, [self.pairs[index] for index in indices], self.sides)

    def components(self) -> Ints:
        """[number of pairs] int64 labels: pairs with equal labels share people or groups.

        Pairs may be connected through other pairs. A split never separates a component.
        """
        nodes: dict[tuple[str, str], int] = {}
        links = []
        for index, pair in enumerate(self.pairs):
            names = [("person", pair.a), ("person", pair.b)]
            if pair.group is not None:
                names.append(("group", pair.group))
            for name in names:
                node = nodes.setdefault(name, len(nodes)) + len(self.pairs)
                links.append((index, node))
        return label_components(links, len(self.pairs) + len(nodes))[: len(self.pairs)]

    def split(
        self, train: float = 0.70, validation: float = 0.15, *, seed: int = 0
    ) -> tuple[Pairs, Pairs, Pairs]:
        """Splits by person into training, validation and test pairs that share no person or group.

        Sizes are numbers of matches, rounded down for training and validation, so that 495 disjoint
        pairs become 346, 74 and 75. If people are in several pairs, whole components are assigned,
        and sizes are as close as possible.

        Args:
            train: Share of the matches for training, above 0.
            validation: Share of the matches for validation, at least 0; the sum of both shares is
                at most 1, and the rest is for testing.
            seed: Seed for the assignment; equal seeds give equal splits.

        Raises:
            ConfigurationError: The shares are out of range.
            DataError: A split whose share is above 0 is empty.
        """
        if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
            raise ConfigurationError(
                "`split(train, validation)` needs shares with 0 < train, 0 ≤ validation and a sum "
                f"of at most 1, got {train} and {validation}."
            )
        total = len(self)
        sizes = [int(total * train + 1e-9), int(total * validation + 1e-9)]
        sizes.append(total - sum(sizes))
        if train + validation > 1 - 1e-9:
            sizes[0 if validation == 0 else 1] += sizes[2]
            sizes[2] = 0
        parts = self._assign(sizes, seed)
        shares = (train, validation, max(0.0, 1 - train - validation))
        for name, part, share in zip(
            ("training", "validation", "test"), parts, shares, strict=True
        ):
            if share > 1e-9 and not any(self.pairs[index].outcome == "match" for index in part):
                raise DataError(
                    f"The {name} split is empty: {total} matches are in "
                    f"{len(set(self.components()))} components of people and groups that cannot be "
                    "separated. Use more pairs, or other shares."
                )
        first, second, third = (self.subset(part) for part in parts)
        return first, second, third

    def folds(self, k: int, *, seed: int = 0) -> list[Ints]:
        """Divides the positions in `pairs` into k folds of about equal size.

        No two folds share a person or group.

        Raises:
            ConfigurationError: `k` is below 2, or above the number of components with a match.
        """
        components = self.components()[self._is_match()]
        available = len(np.unique(components))
        if not 2 <= k <= available:
            raise ConfigurationError(
                "`folds(k)` must be from 2 to the number of components with a match, "
                f"{available}; got {k}."
            )
        size, rest = divmod(len(self), k)
        return self._assign([size + (fold < rest) for fold in range(k)], seed)

    def _is_match(self) -> npt.NDArray[np.bool_]:
        return np.array([pair.outcome == "match" for pair in self.pairs], bool)

    def _assign(self, sizes: Sequence[int], seed: int) -> list[Ints]:
        """Positions in `pairs` of each part; components are assigned in random order."""
        labels = self.components()
        counts = np.bincount(labels[self._is_match()], minlength=labels.max(initial=-1) + 1)
        # Order by content, not by row, so that a shuffled file has the same split
        names: dict[int, tuple[str, str]] = {}
        for label, pair in zip(labels.tolist(), self.pairs, strict=True):
            names[label] = min(names.get(label, (pair.a, pair.b)), (pair.a, pair.b))
        order = np.array(sorted(names, key=lambda label: names[label]), np.int64)
        order = np.random.default_rng(seed).permutation(order)
        part_of_component = np.empty(len(counts), np.int64)
        part_of_component[order] = assign_components(counts[order], sizes)
        parts = part_of_component[labels]
        return [np.flatnonzero(parts == part) for part in range(len(sizes))]


def _normal_forms(ids: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Ids by their Unicode normal form C, and problems of ids that no file can hold apart."""
    forms: dict[str, str] = {}
    problems = []
    for person in ids:
        other = forms.setdefault(unicodedata.normalize("NFC", person), person)
        if other != person:
            problems.append(
                f"the ids {other!a} and {person!a} are the same characters in different Unicode "
                "normal forms; use one of them."
            )
        if has_surrogates(person):
            problems.append(f"the id {person!a} is not valid Unicode.")
    return forms, problems


def _check_sides(sides: int) -> None:
    if sides not in (1, 2):
        raise ConfigurationError(f"`sides` must be 1 or 2, got {sides!r}.")

"""`Pairs`: people, their matches and rejections, and splits without shared people."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.ids import normal_forms
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.core.types import Outcome, Pair, Profile
from pairmatch.data.answers import faults, latest, repeated_note
from pairmatch.data.photos import PhotoOptions
from pairmatch.data.pools import pools_of
from pairmatch.data.reading import read_pairs
from pairmatch.data.splits import (
    SplitBy,
    SplitPairs,
    assign_to_folds,
    pair_components,
    split_pairs,
)
from pairmatch.data.time_splits import split_pairs_by_time

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs:
    """Profiles and the pairs among them.

    Create it from files with [`read`][pairmatch.data.pairs.Pairs.read] or from objects with
    [`of`][pairmatch.data.pairs.Pairs.of]: both validate their input.

    Attributes:
        profiles: Profiles of the people in the pairs, by id.
        pairs: Matches, and rejected and open pairs if they are known. A person may be in several
            pairs.
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
            path: Path to a `.csv`, `.parquet` or `.jsonl` file with the columns `id_a, id_b` and
                optionally `image_a, image_b, text_a, text_b, outcome, a_likes, b_likes, time,
                pool, group`; other columns that end in `_a` or `_b` become attributes. A person
                needs a photo, a text or an attribute.
            images: Folder that photo paths are relative to and must not leave. Default: the folder
                of the file that names the photos.
            profiles: Path to a file with the column `id` and optionally `image` (several photos
                separated by `;`), `text` and attributes; the pairs file then needs only `id_a,
                id_b`.
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
                both sides, an outcome that is unknown or contradicts the likes. The error lists all
                problems.
        """
        _check_sides(sides)
        people: dict[str, Profile] = {}
        problems = []
        for profile in profiles:
            if profile.id in people:
                problems.append(f"the id {profile.id!r} is given twice.")
            people[profile.id] = profile
        forms, form_problems = normal_forms(people)
        problems += form_problems
        pairs = tuple(pairs)
        seen: dict[tuple[str, ...], list[Pair]] = {}
        sides_of: dict[str, str] = {}
        for index, pair in enumerate(pairs):
            key = (pair.a, pair.b) if sides == 2 else tuple(sorted((pair.a, pair.b)))
            problems += [f"pair {index}: {fault}" for fault in faults(pair)]
            entries = seen.setdefault(key, [])
            entries.append(pair)
            is_dated = all(entry.time is not None for entry in entries)
            if len(entries) > 1 and pair.a != pair.b and not is_dated:
                problems.append(f"pair {index}: {pair.a!r}, {pair.b!r} is given twice.")
            for side, person in (("a", pair.a), ("b", pair.b)):
                if person not in people:
                    other = forms.get(unicodedata.normalize("NFC", person))
                    form = f" {other!a} has the same characters." if other else ""
                    problems.append(f"pair {index}: there is no profile {person!r}.{form}")
                if sides == 2 and sides_of.setdefault(person, side) != side and pair.a != pair.b:
                    problems.append(f"pair {index}: {person!r} is on both sides; use sides=1.")
        if problems:
            raise DataError(f"{len(problems)} problems in {len(pairs)} pairs:", problems)
        repeated = [entries for entries in seen.values() if len(entries) > 1]
        if repeated:
            _log.warning("%s", repeated_note(repeated))
        return cls._select(people, [latest(entries) for entries in seen.values()], sides)

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
        counts = [f"{len(self)} matches"]
        for outcome in ("rejected", "open"):
            count = sum(pair.outcome == outcome for pair in self.pairs)
            counts += [f"{count} {outcome}"] if count else []
        return f"Pairs({', '.join(counts)}, {len(self.profiles)} people, sides={self.sides})"

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

    @cached_property
    def decisions(self) -> Decisions:
        """What each side said in each pair, in the order of `pairs`."""
        row_a = {person: row for row, person in enumerate(self.ids_a)}
        row_b = {person: row for row, person in enumerate(self.ids_b)}
        rows = [(row_a[pair.a], row_b[pair.b]) for pair in self.pairs]
        likes = [[-1 if like is None else int(like) for like in pair.likes] for pair in self.pairs]
        answers = np.array(likes, np.int8).reshape(-1, 2)
        return Decisions(np.array(rows, np.int64).reshape(-1, 2), answers[:, 0], answers[:, 1])

    @cached_property
    def pools(self) -> Pools | None:
        """Who could have met whom; None if neither pairs nor profiles name a pool.

        The pools of a person are those of their pairs, and those in the attribute `pools` (or
        `pool`) of their profile, separated by `;`. A pair without a pool belongs to the first pool
        of a's profile that b's profile names too.
        """
        return pools_of(self)

    def _rows(self, outcome: Outcome) -> Ints:
        has_outcome = np.array([pair.outcome == outcome for pair in self.pairs], bool)
        rows: Ints = self.decisions.pairs[has_outcome]
        return rows

    def with_features(
        self, a: Floats, b: Floats | None = None, *, join_identical: bool = False
    ) -> PairedFeatures:
        """These pairs with features of their people.

        Args:
            a: [N, D] features of the people in `ids_a`.
            b: [M, D] features of the people in `ids_b`; None if `sides` is 1.
            join_identical: Whether people with identical features are never separated.

        Raises:
            ConfigurationError: There are no matches, or shapes do not match.
        """
        return PairedFeatures.of(
            a,
            b,
            rejected=self.rejected,
            decisions=self.decisions,
            pools=self.pools,
            groups=[pair.group for pair in self.pairs],
            join_identical=join_identical,
        )

    def subset(self, indices: Iterable[int]) -> Pairs:
        """Pairs at these positions of `pairs`, with their people."""
        return self._select(self.profiles, [self.pairs[index] for index in indices], self.sides)

    def joined(self, *others: Pairs) -> Pairs:
        """These pairs, then those of other sets, which share no pair with them."""
        profiles: dict[str, Profile] = {}
        for part in (self, *others):
            profiles |= part.profiles
        pairs = [pair for part in (self, *others) for pair in part.pairs]
        return self._select(profiles, pairs, self.sides)

    def components(self) -> Ints:
        """[number of pairs] int64 labels: pairs with equal labels share people or groups.

        Pairs may be connected through other pairs.
        """
        return pair_components(self.pairs)

    def split(
        self,
        train: float = 0.70,
        validation: float = 0.15,
        *,
        by: SplitBy | None = None,
        seed: int = 0,
    ) -> SplitPairs:
        """Splits into training, validation and test pairs that share no person or group.

        By component, connected pairs stay together. Sizes are numbers of matches, rounded down for
        training and validation, so that 495 disjoint pairs become 346, 74 and 75.

        By people, each side's people are parted at random. Pairs inside a part are kept, and pairs
        between parts are left out: they are in `crossing` of the result. The shares are those of
        the matches that are kept.

        Args:
            train: Share of the matches for training, above 0.
            validation: Share of the matches for validation, at least 0; the sum of both shares is
                at most 1, and the rest is for testing.
            by: `component` or `people`. By default by component, unless people stand in several
                pairs and the parts would miss their sizes by more than a fifth: in a log of likes
                and matches, nearly all pairs are one component. `reason` of the result says what
                was chosen and why.
            seed: Seed for the assignment; equal seeds give equal splits.

        Raises:
            ConfigurationError: The shares are out of range, or `by` is unknown.
            DataError: A split whose share is above 0 is empty, or misses its size by more than a
                fifth.
        """
        return split_pairs(self, train, validation, by=by, seed=seed)

    def split_by_time(
        self, before: str | date | datetime, *, validation: float = 0.15
    ) -> SplitPairs:
        """Splits into pairs to train on, which came before a moment, and later ones to test on.

        The test part holds the later pairs of two new people. Later pairs with a person who was
        seen before are in `crossing` and in `with_seen` of the result, to be evaluated apart:
        `matcher.evaluate(split.with_seen, known=split.known)`.

        Args:
            before: Date or time in ISO 8601; a date is its first moment, and without a time zone it
                is UTC. Pairs of this moment are later ones.
            validation: Share of the earlier matches, the latest ones, among which validation pairs
                are sought: those of two people who are new at that time. Pairs between their people
                and others are left out. Fewer than 20 such matches train instead, and there is no
                validation part: learners that need one hold out some training pairs.

        Raises:
            ConfigurationError: `before` is no date or time, or `validation` is out of range.
            DataError: A pair has no time, or there is no match before or after the moment.
        """
        return split_pairs_by_time(self, before, validation)

    def folds(self, k: int, *, seed: int = 0) -> list[Ints]:
        """Divides the positions in `pairs` into k folds of about equal size.

        No two folds share a person or group.

        Raises:
            ConfigurationError: `k` is below 2, or above the number of components with a match.
        """
        return assign_to_folds(self, k, seed)


def _check_sides(sides: int) -> None:
    if sides not in (1, 2):
        raise ConfigurationError(f"`sides` must be 1 or 2, got {sides!r}.")

"""`Pairs`: people, their matches and rejections, and splits without shared people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, Unpack

import numpy as np

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.decisions import Decisions
from pairmatch.core.display import html_display
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.core.types import Outcome, Pair, Profile
from pairmatch.data.answers import decisions_of
from pairmatch.data.checking import check_objects, check_side_number
from pairmatch.data.counts import counts_table, outcome_counts
from pairmatch.data.options import Reading, TableOptions, source_of
from pairmatch.data.pools import check_rule, pools_of
from pairmatch.data.reading import read_pairs
from pairmatch.data.skipping import Skipped, write_skipped
from pairmatch.data.splits import (
    SplitBy,
    SplitPairs,
    assign_to_folds,
    pair_components,
    split_pairs,
)
from pairmatch.data.time_splits import split_pairs_by_time
from pairmatch.io.tables import Frame, TableSource


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
        where: Rule that says who could have met; see [`pooled`][pairmatch.data.pairs.Pairs.pooled].
        skipped: Rows and cells that were left out when they were read with `on_bad_row="skip"`.
    """

    profiles: Mapping[str, Profile]
    pairs: tuple[Pair, ...]
    sides: Literal[1, 2] = 2
    where: str | None = None
    skipped: tuple[Skipped, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def read(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        profiles: str | Path | Sequence[str | Path] | None = None,
        sides: Literal[1, 2] = 2,
        **options: Unpack[TableOptions],
    ) -> Pairs:
        """Reads a pairs file, and optionally a profiles file.

        Args:
            path: Path to a `.csv`, `.tsv`, `.parquet` or `.jsonl` file, to a folder of such files,
                a pattern such as `log/*.csv.gz`, or a list of these, with the columns `id_a, id_b`
                and optionally `image_a, image_b, text_a, text_b, outcome, a_likes, b_likes, time,
                pool, group`; other columns that end in `_a` or `_b` become attributes. A person
                needs a photo, a text or an attribute.
            profiles: The same for profiles, with the column `id` and optionally `image` (several
                photos separated by `;`, or a list), `text` and attributes; the pairs file then
                needs only `id_a, id_b`.
            sides: 2, or 1 if anyone may match anyone.
            **options: [`TableOptions`][pairmatch.data.options.TableOptions].

        Raises:
            ConfigurationError: An option is invalid.
            DataError: The files have problems; the error lists all, with file, line and column.
        """
        pairs = source_of(path, "path")
        described = None if profiles is None else source_of(profiles, "profiles")
        return cls._read("Pairs.read", pairs, described, sides, options)

    @classmethod
    def from_frame(
        cls,
        frame: object,
        *,
        profiles: object = None,
        sides: Literal[1, 2] = 2,
        **options: Unpack[TableOptions],
    ) -> Pairs:
        """Reads pairs, and optionally profiles, from tables in memory.

        Tables of pandas (from 2.2), polars, Arrow and DuckDB, and all others with the interface
        `__arrow_c_stream__`, are read as Parquet files are: the types of columns hold, and messages
        count rows from 1. The index of pandas is left out, unless it has a name.

        Args:
            frame: Table with the columns of a pairs file.
            profiles: Table with the columns of a profiles file, or the path to one.
            sides: 2, or 1 if anyone may match anyone.
            **options: [`TableOptions`][pairmatch.data.options.TableOptions].

        Raises:
            ConfigurationError: An option is invalid, or a table has no Arrow interface.
            DataError: The tables have problems; the error lists all, with row and column.
        """
        described = None if profiles is None else source_of(profiles, "profiles")
        return cls._read("Pairs.from_frame", Frame("frame", frame), described, sides, options)

    @classmethod
    def _read(
        cls,
        call: str,
        source: TableSource,
        profiles: TableSource | None,
        sides: Literal[1, 2],
        options: TableOptions,
    ) -> Pairs:
        check_side_number(sides)
        reading = Reading.of(call, source if profiles is None else profiles, options)
        people, pairs, skipped = read_pairs(source, profiles=profiles, sides=sides, reading=reading)
        return replace(cls._select(people, pairs, sides), skipped=skipped)

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
        check_side_number(sides)
        people, kept = check_objects(profiles, pairs, sides)
        return cls._select(people, kept, sides)

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
        people = f"{len(self.profiles)} people, sides={self.sides}"
        return f"Pairs({outcome_counts(self)}, {people})"

    def _repr_html_(self) -> str:
        return html_display(*counts_table(self))

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
        return decisions_of(self.pairs, self.ids_a, self.ids_b)

    @cached_property
    def pools(self) -> Pools | None:
        """Who could have met whom; None if neither pairs nor profiles name a pool, nor a rule.

        The pools of a person are those of their pairs, those in the attribute `pools` (or `pool`)
        of their profile, separated by `;`, and that of the rule `where`. A pair without a pool
        belongs to the first of a's pools that is one of b's too.
        """
        return pools_of(self)

    def _rows(self, outcome: Outcome) -> Ints:
        has_outcome = np.array([pair.outcome == outcome for pair in self.pairs], bool)
        return np.asarray(self.decisions.pairs[has_outcome], np.int64)

    def with_features(
        self, a: Floats, b: Floats | None = None, *, join_identical: bool = False
    ) -> PairedFeatures:
        """These pairs with features of their people.

        Args:
            a: [N, D] features of the people in `ids_a`.
            b: [M, D] features of the people in `ids_b`; None if `sides` is 1.
            join_identical: Whether people with identical features are never separated.

        Raises:
            ConfigurationError: There is neither a match nor a yes, or shapes do not match.
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

    def write_skipped(self, path: str | Path) -> None:
        """Writes `skipped` as a CSV file: file, location, column, id and reason of each entry.

        Only its owner can read it, because it holds ids.

        Args:
            path: Path to the file; it is replaced as a whole.
        """
        write_skipped(Path(path), self.skipped)

    def subset(self, indices: Iterable[int]) -> Pairs:
        """Pairs at these positions of `pairs`, with their people."""
        pairs = [self.pairs[index] for index in indices]
        return replace(self._select(self.profiles, pairs, self.sides), where=self.where)

    def joined(self, *others: Pairs) -> Pairs:
        """These pairs, then those of other sets, which share no pair with them."""
        profiles = {k: v for part in (self, *others) for k, v in part.profiles.items()}
        pairs = [pair for part in (self, *others) for pair in part.pairs]
        return replace(self._select(profiles, pairs, self.sides), where=self.where)

    def pooled(self, where: str) -> Pairs:
        """The same pairs, with pools by a rule: people who could all have met are one pool.

        Args:
            where: Rule that parts people, such as `region = query.region`; `query.` is of side a.

        Raises:
            ConfigurationError: The rule cannot be read, parts no people, or every pair has a pool.
        """
        pooled = replace(self, where=where)
        check_rule(pooled)
        return pooled

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
            by: `component`, `people`, or `pool`: whole pools, with their people. By default by
                component, unless people stand in several pairs and the parts would miss their sizes
                by more than a fifth: in a log of likes and matches, nearly all pairs are one
                component. `reason` of the result says what was chosen and why.
            seed: Seed for the assignment; equal seeds give equal splits.

        Raises:
            ConfigurationError: The shares are out of range, or `by` is unknown.
            DataError: A split with a share above 0 is empty, or misses its size by over a fifth.
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
            ConfigurationError: `k` is below 2 or above the number of components with a match.
        """
        return assign_to_folds(self, k, seed)

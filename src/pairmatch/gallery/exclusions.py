"""Pairs of people that must not be shown to each other: seen before, or blocked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from pairmatch.core.errors import DataError
from pairmatch.io.tables import read_table, words_for_missing


class Exclusions:
    """Pairs of people where the second is not shown to the first.

    Args:
        pairs: (id, id of the person who is not shown).
        symmetric: Whether neither is shown to the other. Use it for blocks rather than for
            candidates that were seen before.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), *, symmetric: bool = False) -> None:
        self._excluded: dict[str, set[str]] = {}
        for person, other in pairs:
            self.add(person, other, symmetric=symmetric)

    @classmethod
    def read(
        cls, path: str | Path, *, symmetric: bool = False, keep_words: Collection[str] = ()
    ) -> Exclusions:
        """Reads a .csv, .parquet or .jsonl file with the columns `id` and `other`.

        Args:
            path: Path to the file.
            symmetric: Whether neither person is shown to the other.
            keep_words: Ids that would stand for a missing value, such as `None`.

        Raises:
            ConfigurationError: `keep_words` has a word that is always a value.
            DataError: The file cannot be read, lacks a column, or has blank cells.
        """
        columns = ("id", "other")
        missing_words = words_for_missing(keep_words)
        table = read_table(Path(path), ids=columns, missing_words=missing_words)
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise DataError(
                f"{path}: exclusions need the columns id and other; {' and '.join(missing)} is "
                "missing."
            )
        blank = [table.rows_without_id(name) for name in columns]
        table.problems += [
            rows[row] for row in range(len(table.rows)) for rows in blank if row in rows
        ]
        if table.problems:
            raise DataError(f"{path} cannot be used:", table.problems)
        pairs = ((cells["id"], cells["other"]) for cells in table.rows)
        return cls(pairs, symmetric=symmetric)

    def add(self, person: str, other: str, *, symmetric: bool = False) -> None:
        """Adds a pair: `other` is not shown to `person`, and if symmetric, nor vice versa."""
        self._excluded.setdefault(person, set()).add(other)
        if symmetric:
            self._excluded.setdefault(other, set()).add(person)

    def forget(self, ids: Iterable[str]) -> None:
        """Removes all pairs of people."""
        forgotten = set(ids)
        self._excluded = {
            person: kept
            for person, others in self._excluded.items()
            if person not in forgotten and (kept := others - forgotten)
        }

    def of(self, person: str) -> Collection[str]:
        """Returns the ids that are not shown to a person."""
        return self._excluded.get(person, frozenset())

    def digest(self) -> str:
        """Returns a hash of the pairs that does not depend on their order."""
        pairs = sorted(
            (person, other) for person, others in self._excluded.items() for other in others
        )
        return hashlib.blake2b(json.dumps(pairs).encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        """Number of pairs (person, other)."""
        return sum(map(len, self._excluded.values()))

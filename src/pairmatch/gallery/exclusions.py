"""Who must not be shown to whom: already seen, blocked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from pairmatch.core.errors import DataError
from pairmatch.io.tables import read_table


class Exclusions:
    """Pairs of people of whom the second is not shown to the first.

    Args:
        pairs: (id, id of the one who is not shown).
        symmetric: Neither is shown to the other: for blocks rather than for what was seen already.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), *, symmetric: bool = False) -> None:
        self._others: dict[str, set[str]] = {}
        for person, other in pairs:
            self.add(person, other, symmetric=symmetric)

    @classmethod
    def read(cls, path: str | Path, *, symmetric: bool = False) -> Exclusions:
        """Reads a .csv, .parquet or .jsonl file with the columns `id` and `other`.

        Raises:
            DataError: Cannot be read, lacks a column, or has blank cells.
        """
        table = read_table(Path(path))
        absent = [name for name in ("id", "other") if name not in table.columns]
        if absent:
            raise DataError(
                f"{path}: exclusions need the columns id and other; {' and '.join(absent)} is missing."
            )
        for row, cells in enumerate(table.rows):
            for name in ("id", "other"):
                if name not in cells:
                    table.problem(row, name, "the id is blank.")
        if table.problems:
            raise DataError(f"{path} cannot be used:", table.problems)
        return cls(
            ((str(cells["id"]), str(cells["other"])) for cells in table.rows), symmetric=symmetric
        )

    def add(self, person: str, other: str, *, symmetric: bool = False) -> None:
        """From now on `other` is not shown to `person`, nor the other way round where it is symmetric."""
        self._others.setdefault(person, set()).add(other)
        if symmetric:
            self._others.setdefault(other, set()).add(person)

    def forget(self, ids: Iterable[str]) -> None:
        """Removes every trace of people."""
        gone = set(ids)
        self._others = {
            person: kept
            for person, others in self._others.items()
            if person not in gone and (kept := others - gone)
        }

    def of(self, person: str) -> Collection[str]:
        """Ids that are not shown to a person."""
        return self._others.get(person, frozenset())

    def digest(self) -> str:
        """Tells these exclusions from others, whatever order they were added in."""
        pairs = sorted(
            (person, other) for person, others in self._others.items() for other in others
        )
        return hashlib.blake2b(json.dumps(pairs).encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        """Number of (person, other)."""
        return sum(map(len, self._others.values()))

"""What a store holds, and whether all of it can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairmatch.core.errors import StoreError
from pairmatch.core.text import printable
from pairmatch.io.outcomes import Spent
from pairmatch.io.reading import MISSING, Damage, sound_outcome, sound_vector
from pairmatch.io.sqlite import Database, chunks, marks
from pairmatch.io.store import Store

_PAGE = 500
_NAMED = 5
_KEY = re.compile("[0-9a-f]{64}")
_STRUCTURE_FIX = (
    "restore a copy of it, or delete it: what is missing is extracted and generated again"
)


@dataclass(frozen=True, slots=True)
class StoreContent:
    """What a store holds.

    Attributes:
        path: Path to the file.
        bytes: Size of the file and its write-ahead log.
        features: Number of vectors by number format and width.
        metadata: Number of metadata outcomes.
        refusals: Number of these that are refusals.
        people: Number of people with data; query people without an id count as one.
        corrections: Number of people with corrections.
        batches: Number of submitted batches that were not collected yet.
        spent: Cost of every model so far.
    """

    path: Path
    bytes: int
    features: dict[tuple[str, int], int]
    metadata: int
    refusals: int
    people: int
    corrections: int
    batches: int
    spent: tuple[Spent, ...]

    def __str__(self) -> str:
        kinds = "; ".join(
            f"{count:,} of width {width:,} in {dtype}"
            for (dtype, width), count in sorted(self.features.items(), key=lambda kind: -kind[1])
        )
        lines = [
            f"{printable(str(self.path))}: {self.bytes / 1e6:,.1f} MB, {self.people:,} people",
            f"Features: {kinds or 'none'}",
            f"Metadata: {self.metadata:,} outcomes, {self.refusals:,} of them refusals; "
            f"corrections of {self.corrections:,} people; {self.batches:,} unfinished batches",
        ]
        return "\n".join([*lines, *(f"Cost: {spent}" for spent in self.spent)])


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Rows of a store with the same problem.

    Attributes:
        what: What is wrong with them.
        count: Number of rows.
        examples: Keys or people of the first few.
        fix: How to repair them.
    """

    what: str
    count: int
    examples: tuple[str, ...]
    fix: str

    def __str__(self) -> str:
        named = ", ".join(printable(example)[:80] for example in self.examples)
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.count:,} {self.what} ({named}{more}): {self.fix}."


def store_content(store: Store) -> StoreContent:
    """Counts what a store holds."""
    database = store._database
    names = {"<f2": "float16", "<f4": "float32", "<f8": "float64"}
    with database.snapshot():
        features = {
            (names.get(str(dtype), str(dtype)), int(width or 0)): count
            for dtype, width, count in database.select(
                "SELECT dtype, length(vector) / CAST(substr(dtype, 3) AS INTEGER), count(*) "
                "FROM features GROUP BY 1, 2"
            )
        }
        metadata, refusals, people, corrections, batches = (
            database.select(query)[0][0]
            for query in (
                "SELECT count(*) FROM metadata",
                # Outcomes that are no JSON are counted by `verify_store`
                "SELECT count(*) FROM metadata "
                "WHERE CASE WHEN json_valid(outcome) THEN outcome ->> 'refusal' END IS NOT NULL",
                "SELECT count(*) FROM (SELECT person FROM people UNION SELECT person FROM "
                "corrections)",
                "SELECT count(DISTINCT person) FROM corrections",
                "SELECT count(*) FROM batches",
            )
        )
        spent = tuple(store.spent())
    size = sum(file.stat().st_size for file in database.files() if file.exists())
    return StoreContent(
        store.path, size, features, metadata, refusals, people, corrections, batches, spent
    )


def verify_store(store: Store, *, repair: bool = False) -> list[StoreProblem]:
    """Checks every row of a store.

    Args:
        store: The store.
        repair: Whether to remove damaged rows, so that they are extracted or generated again, and
            rows that belong to no person, which `forget` cannot reach.

    Returns:
        Problems that were found; with `repair`, the damaged rows among them are removed.

    Raises:
        StoreError: With `repair`, the store cannot be written.
    """
    database = store._database
    try:
        structure = [row[0] for row in database.select("PRAGMA integrity_check(20)")]
    except StoreError as error:  # too damaged even for the check
        structure = [str(error)]
    if structure != ["ok"]:
        first = tuple(" ".join(str(line).split())[:80] for line in structure[:1])
        return [StoreProblem("damaged places in the file", len(structure), first, _STRUCTURE_FIX)]
    rows = _Rows(database)
    rows.check_features()
    rows.check_outcomes()
    rows.check_corrections()
    rows.check_links()
    if repair:
        rows.remove()
    return rows.problems()


class _Rows:
    """Problems of rows, by table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._faults: dict[tuple[str, str], list[Any]] = {}

    def _add(self, table: str, what: str, key: Any) -> None:
        self._faults.setdefault((table, what), []).append(key)

    def check_features(self) -> None:
        """Checks key, number format, size, values and owner of every vector."""
        for page in self._pages("features", "key, dtype, vector"):
            linked = self._linked([row[0] for row in page])
            for key, dtype, content in page:
                if sound_vector(dtype, content) is None:
                    self._add("features", "damaged vectors", key)
                elif not _is_key(key):
                    self._add("features", "vectors whose key is no content key", key)
                elif key not in linked:
                    self._add("features", "vectors of no person, which `forget` cannot reach", key)

    def check_outcomes(self) -> None:
        """Checks key, JSON and owner of every metadata outcome."""
        for page in self._pages("metadata", "key, outcome"):
            linked = self._linked([row[0] for row in page])
            for key, text in page:
                if sound_outcome(text) is None:
                    self._add("metadata", "damaged metadata outcomes", key)
                elif not _is_key(key):
                    self._add("metadata", "metadata outcomes whose key is no content key", key)
                elif key not in linked:
                    self._add(
                        "metadata",
                        "metadata outcomes of no person, which `forget` cannot reach",
                        key,
                    )

    def check_corrections(self) -> None:
        """Checks the JSON value of every correction."""
        damage = Damage("", "")
        for person, value in self._database.select("SELECT person, value FROM corrections"):
            if damage.json_value(value) is MISSING:
                self._add("corrections", "damaged corrections", person)

    def check_links(self) -> None:
        """Checks that people and keys are texts."""
        query = "SELECT person, key FROM people WHERE typeof(person) != 'text' OR "
        query += "typeof(key) != 'text' OR length(key) != 64"
        for person, key in self._database.select(query):
            self._add("people", "links of people to what is no content key", (person, key))

    def problems(self) -> list[StoreProblem]:
        """All problems, those of a kind together."""
        fix = "remove them with --repair"
        fixes = {
            "features": f"{fix}; the next run extracts them again",
            "metadata": f"{fix}; the next run generates them again",
            "corrections": f"{fix}, and import them again with annotate --corrections",
            "people": fix,
        }
        return [
            StoreProblem(what, len(keys), tuple(map(str, keys[:_NAMED])), fixes[table])
            for (table, what), keys in self._faults.items()
        ]

    def remove(self) -> None:
        """Deletes all rows with problems."""
        columns = {"features": "key", "metadata": "key", "corrections": "person"}
        with self._database.transaction() as connection:
            for (table, _), keys in self._faults.items():
                if table == "people":
                    connection.executemany("DELETE FROM people WHERE person = ? AND key = ?", keys)
                    continue
                connection.executemany(
                    f"DELETE FROM {table} WHERE {columns[table]} = ?", [(key,) for key in keys]
                )

    def _pages(self, table: str, columns: str) -> Iterator[list[tuple[Any, ...]]]:
        position = ""
        while page := self._database.select(
            f"SELECT {columns} FROM {table} WHERE key > ? ORDER BY key LIMIT {_PAGE}", (position,)
        ):
            yield page
            position = page[-1][0]

    def _linked(self, keys: list[Any]) -> set[Any]:
        """Subset of the keys that belong to a person."""
        return {
            key
            for chunk in chunks(keys)
            for (key,) in self._database.select(
                f"SELECT DISTINCT key FROM people WHERE key IN ({marks(chunk)})", chunk
            )
        }


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and _KEY.fullmatch(key) is not None
